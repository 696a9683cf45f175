/* Detections from the outputs of a detector's levels, in C99: of the point detector and RetinaNet.
 *
 * Per image: count = 0; for each level, finest first, count = tinyjax_level(..); then
 * count = tinyjax_nms(..). Constants are in the metadata of the file. Integer outputs are first
 * dequantized: value = scale * (q - zero_point).
 */
#ifndef TINYJAX_DECODE_H
#define TINYJAX_DECODE_H

#include <math.h>
#include <stddef.h>

typedef struct {
    float x1, y1, x2, y2; /* pixels of the network's input */
    float score;
    int label;
} tinyjax_box;

/* Add the boxes of a level with scores above `threshold`, and return the new count. If there are
 * more than `capacity` (pre_nms_top_k), those with the highest scores stay, as in the run.
 * logits: [h, w, A, classes]. deltas: [h, w, A, 4], the offsets of the point detector, whose A is 1.
 * anchors: [A, 4] of RetinaNet, or NULL. width, height: of the network's input. */
static int tinyjax_level(const float *logits, const float *deltas, int h, int w, int A, int classes,
                         int stride, const float *anchors, int width, int height, float threshold,
                         tinyjax_box *boxes, int count, int capacity) {
    for (int cell = 0; cell < h * w; cell++)
        for (int a = 0; a < A; a++)
            for (int k = 0; k < classes; k++) {
                const float *d = deltas + (cell * A + a) * 4;
                float score = 1 / (1 + expf(-logits[(cell * A + a) * classes + k]));
                if (score <= threshold) continue;
                int slot = count;
                if (count == capacity) { /* replace the lowest score, the last one of equal ones */
                    slot = 0;
                    for (int i = 1; i < count; i++)
                        if (boxes[i].score <= boxes[slot].score) slot = i;
                    if (score <= boxes[slot].score) continue;
                } else {
                    count++;
                }
                float x = (float)(cell % w * stride), y = (float)(cell / w * stride), cx, cy, bw, bh;
                if (anchors) {
                    const float *b = anchors + a * 4, limit = logf(1000.0f / 16);
                    cx = x + (b[0] + b[2]) / 2 + d[0] * (b[2] - b[0]);
                    cy = y + (b[1] + b[3]) / 2 + d[1] * (b[3] - b[1]);
                    bw = expf(fminf(d[2], limit)) * (b[2] - b[0]);
                    bh = expf(fminf(d[3], limit)) * (b[3] - b[1]);
                } else {
                    cx = x + (0.5f + d[0]) * stride;
                    cy = y + (0.5f + d[1]) * stride;
                    bw = expf(fminf(fmaxf(d[2], -4), 4)) * stride;
                    bh = expf(fminf(fmaxf(d[3], -4), 4)) * stride;
                }
                tinyjax_box box = {cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2, score, k};
                if (anchors) { /* RetinaNet clips to the input */
                    box.x1 = fminf(fmaxf(box.x1, 0), width), box.x2 = fminf(fmaxf(box.x2, 0), width);
                    box.y1 = fminf(fmaxf(box.y1, 0), height);
                    box.y2 = fminf(fmaxf(box.y2, 0), height);
                }
                boxes[slot] = box;
            }
    return count;
}

static float tinyjax_iou(const tinyjax_box *a, const tinyjax_box *b) {
    float w = fmaxf(fminf(a->x2, b->x2) - fmaxf(a->x1, b->x1), 0);
    float h = fmaxf(fminf(a->y2, b->y2) - fmaxf(a->y1, b->y1), 0);
    float areas = (a->x2 - a->x1) * (a->y2 - a->y1) + (b->x2 - b->x1) * (b->y2 - b->y1);
    return w * h > 0 ? w * h / (areas - w * h) : 0;
}

/* Greedy suppression within each class. The first boxes are then the detections, in descending
 * order of score. Returns their number, at most `max_detections`. */
static int tinyjax_nms(tinyjax_box *boxes, int count, float iou_threshold, int max_detections) {
    int kept = 0;
    for (int i = 1; i < count; i++) { /* sort */
        tinyjax_box box = boxes[i];
        int j = i;
        for (; j > 0 && boxes[j - 1].score < box.score; j--) boxes[j] = boxes[j - 1];
        boxes[j] = box;
    }
    for (int i = 0; i < count && kept < max_detections; i++) {
        int keep = 1;
        for (int j = 0; j < kept && keep; j++)
            keep = boxes[j].label != boxes[i].label || tinyjax_iou(&boxes[j], &boxes[i]) <= iou_threshold;
        if (keep) boxes[kept++] = boxes[i];
    }
    return kept;
}

#endif
