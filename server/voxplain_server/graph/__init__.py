"""An ONNX file becomes a graph that can be reasoned about, and a differentiable twin of it."""
