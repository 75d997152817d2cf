"""The refusal of a model file."""


class ModelFileError(ValueError):
    """A model file that is not read.

    `reason` is one of UPPER_SNAKE words below; the message names the fault and the remedy, never a path or a name in the file.

    MODEL_FILE_UNREADABLE       not there, not a regular file, or not to be opened
    MODEL_TOO_LARGE             the file with its external data exceeds the limit
    CORRUPT_MODEL_FILE          truncated, not an ONNX file, or against the rules of the format
    TENSOR_SIZE_MISMATCH        a tensor holds more or fewer bytes than its type and dimensions say
    EXTERNAL_DATA_ESCAPES       external data anywhere but in a plain file of its own beside the model
    EXTERNAL_DATA_OUT_OF_RANGE  external data beyond the end of its file, or at no valid offset
    UNKNOWN_OPERATOR_DOMAIN     an operator from outside the ONNX standard
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
