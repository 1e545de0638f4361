"""dihal-bench: where should diffusion enter a pretrained language model?"""

__version__ = "0.1.0"
