"""What a handler may answer to one image, for the tests of the import and of loads: both must read the same."""

RIGHT = [0.25, 0.75]
LABELS = ("a", "b")
OUTPUT = "probabilities"

READ = {
    "numbers": "[0.25, 0.75]",
    "one row": "[[0.25, 0.75]]",
    "a row in more lists": "[[[0.25, 0.75]]]",
    "numbers, each in a list": "[[[0.25], [0.75]]]",
    "predictions": '{"predictions": [[0.25, 0.75]]}',
    "predictions without a list an image": '{"predictions": [0.25, 0.75]}',
    "predictions by label": '{"predictions": [{"b": 0.75, "a": 0.25}]}',
    "labels": '{"b": 0.75, "a": 0.25}',
    "labels in a list": '[{"b": 0.75, "a": 0.25}]',
    "labels among others": '{"b": 0.75, "a": 0.25, "other": 0.5}',
    "classes by number": '{"1": 0.75, "0": 0.25}',
    "rows of outputs": '{"predictions": [{"probabilities": [0.25, 0.75], "classes": 1}]}',
    "rows of outputs, bare": '[{"probabilities": [0.25, 0.75], "classes": 1}]',
    "columns of outputs": '{"outputs": {"probabilities": [[0.25, 0.75]], "classes": [1]}}',
    "columns of outputs, bare": '{"probabilities": [[0.25, 0.75]], "classes": [1]}',
    "one output of another name": '{"scores": [0.25, 0.75]}',
    "objects in objects": '{"result": {"probabilities": {"b": 0.75, "a": 0.25}}}',
    "JSON in a string": "'[0.25, 0.75]'",
    "JSON in bytes": "b'[0.25, 0.75]'",
}
"""Name to a Python expression of the answer; each gives RIGHT for a model with LABELS and OUTPUT."""

ANSWERED = {
    "the best five labels": '{"tabby": 0.6, "tiger": 0.2}',
    "a label": '"tabby"',
    "a number": "7",
    "a list of labels": '["tabby", "tiger"]',
    "a label with its score": '{"pred_label": 3, "pred_score": 0.6, "pred_class": "tabby"}',
    "boxes": '[{"box": [1, 2, 3, 4], "label": "cat"}, {"box": [5, 6, 7, 8], "label": "dog"}]',
    "bytes that are no text": "bytes([255, 216, 255, 224])",
    "numbers of any rank": "[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]",
    "nothing found": "[]",
}
"""An answer, but not one of two numbers: it counts where no right answer is known."""

ERRORS = {
    "TorchServe's error": '{"code": 400, "type": "BadRequestException", "message": "no image"}',
    "the error of a server": '{"code": 507, "type": "InternalServerException", "message": "out of memory"}',
    "an error in a list": '[{"code": 500, "message": "no image"}]',
    "an error in words": '{"error": "no image"}',
    "nothing": "b''",
}
"""No answer, whatever is known of the model."""
