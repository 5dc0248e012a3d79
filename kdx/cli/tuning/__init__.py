"""What kdx-tune is made of: settings, the space that is searched, the study, the processes of its trials, and the end."""
