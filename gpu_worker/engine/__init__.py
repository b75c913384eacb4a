"""What a restoration is: video in, restored video out."""
