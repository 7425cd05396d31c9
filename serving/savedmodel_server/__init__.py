"""An embedded server for TensorFlow SavedModels that speaks TensorFlow Serving's API (it is not TensorFlow Serving)."""
