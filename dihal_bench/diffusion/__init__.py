"""The diffusion that every interface shares: noise, schedule, denoisers."""
