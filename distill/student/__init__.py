"""Student stage: trains the small models on the labels, exports them to ONNX and writes the bundles."""
