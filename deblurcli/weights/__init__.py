"""Weights: finding them by name (`hub`) in manifests (`manifest`), getting them (`download`),
their files (`files`), the paper's own (`import_deepdeblur`), and ONNX (`export_onnx`)."""
