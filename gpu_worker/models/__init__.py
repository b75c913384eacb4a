"""SeedVR2's networks: the diffusion transformer and the causal video VAE, with what loads and plans them."""
