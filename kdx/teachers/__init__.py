"""Teachers: frozen networks whose outputs are the lesson, how they are calibrated, and where trained ones are kept."""
