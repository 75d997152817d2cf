"""The refusal of a graph that the twin cannot be built from."""


class UnsupportedOperator(ValueError):
    """The twin knows no exact counterpart of one or more operators.

    `ops` names all of them, each once and sorted: `("GridSample", "Resize (tf_crop_and_resize)")`.
    """

    def __init__(self, ops: tuple[str, ...]) -> None:
        self.ops = tuple(sorted(set(ops)))
        super().__init__(f"operators without a differentiable counterpart: {', '.join(self.ops)}")
