"""Images: sources decode them, the sampler orders them, loaders bring them to the device."""
