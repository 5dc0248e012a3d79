"""Data: sources decode images, the sampler orders them, loaders move them to the device."""
