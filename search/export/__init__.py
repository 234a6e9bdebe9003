"""A found network as files that other tools read: weights, assignment, workload, ONNX."""
