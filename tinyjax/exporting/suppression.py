"""Non-maximum suppression as ONNX operations, with the results of `nms.class_wise_nms`."""

import numpy as np

from tinyjax.exporting.graph import BATCH, Graph


def suppress(
    graph: Graph,
    iou_threshold: float,
    max_detections: int,
    pre_nms_top_k: int,
    score_threshold: float = 0.0,
) -> None:
    """Replace the outputs boxes [N, A, 4] or [N, A, C, 4], and scores [N, A, C], by detections
    f32[N, K, 6].

    A row is x1, y1, x2, y2, score, label, in descending order of score; unused rows have a score of
    0. This is the layout of Ultralytics' files with `nms=True`. The arguments are those of
    `class_wise_nms`; as there, suppression is within each class and among the `pre_nms_top_k` pairs
    of box and class with the highest scores.
    """
    boxes, scores = graph.outputs["boxes"], graph.outputs["scores"]
    _, anchors, classes = graph.shapes[scores]
    top = min(pre_nms_top_k, anchors * classes)
    count = min(max_detections, top)

    # ---- candidates: [N, P] scores and labels, [N, P, 4] boxes
    flat = graph.reshape(scores, (BATCH, anchors * classes))
    score, pair = _top_k(graph, flat, top)
    label = _integer(graph, "Mod", pair, classes)
    if len(graph.shapes[boxes]) == 4:  # a box for each class
        box = _take(graph, graph.reshape(boxes, (BATCH, anchors * classes, 4)), pair, top)
    else:
        box = _take(graph, boxes, _integer(graph, "Div", pair, classes), top)

    # ---- suppression: a candidate has its score in its own class, and 0 in the others
    is_class = graph.add(
        "Equal",
        graph.reshape(label, (BATCH, 1, top)),
        np.arange(classes).reshape(1, classes, 1),
        shape=(BATCH, classes, top),
        dtype=bool,
    )
    by_class = graph.add(
        "Where",
        is_class,
        graph.reshape(score, (BATCH, 1, top)),
        np.float32(0),
        shape=(BATCH, classes, top),
    )
    limits = np.array(count), np.float32(iou_threshold), np.float32(score_threshold)
    selected = graph.add(  # rows of image, class, candidate
        "NonMaxSuppression", box, by_class, *limits, shape=(0, 3), dtype=np.int64
    )
    position = graph.add("Gather", selected, np.array([0, 2]), shape=(0, 2), dtype=np.int64, axis=1)
    kept_scores = graph.add("GatherND", score, position, shape=(0,))
    zeros = graph.add("Mul", score, np.float32(0), shape=(BATCH, top))
    kept = graph.add("ScatterND", zeros, position, kept_scores, shape=(BATCH, top))

    # ---- the best of all classes
    score, order = _top_k(graph, kept, count)
    box = _take(graph, box, order, count)
    label = graph.add("GatherElements", label, order, shape=(BATCH, count), dtype=np.int64, axis=1)
    number = graph.add("Cast", label, shape=(BATCH, count), to=np.dtype(np.float32))
    columns = [graph.reshape(x, (BATCH, count, 1)) for x in (score, number)]
    rows = graph.add("Concat", box, *columns, shape=(BATCH, count, 6), axis=2)
    graph.outputs = {"detections": rows}


def _top_k(graph: Graph, values: str, k: int) -> list[str]:
    """The k largest values of each row, in descending order, and their indices."""
    shape = (BATCH, k)
    outputs = [(shape, np.float32), (shape, np.int64)]
    return graph.add_node("TopK", [values, np.array([k])], outputs, axis=1)


def _integer(graph: Graph, op: str, x: str, divisor: int) -> str:
    return graph.add(op, x, np.array(divisor), shape=graph.shapes[x], dtype=np.int64)


def _take(graph: Graph, boxes: str, index: str, count: int) -> str:
    """The boxes [N, A, 4] at indices [N, count]."""
    index = graph.reshape(index, (BATCH, count, 1))
    shape = (BATCH, count, 4)
    return graph.add("GatherND", boxes, index, shape=shape, batch_dims=1)
