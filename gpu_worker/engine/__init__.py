"""What a restoration is: presets, frames in and out, colour."""
