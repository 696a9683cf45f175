"""The five most common uses of the Python interface. Run it after `make quickstart`, in the
repository's root:

.venv/bin/python docs/example.py
"""

import json
import sys
from pathlib import Path

import tinyjax
from tinyjax import config as configs
from tinyjax.data.synthetic import dataset

run, config_file = sys.argv[1:] or ("runs/quickstart", "configs/quickstart.py")
output = Path("runs/example")
output.mkdir(parents=True, exist_ok=True)

# 1. Load a trained network: a run folder, or weights/<name>.safetensors with its .json, which are
#    all that another machine needs.
model = tinyjax.load(run)
print(model)

# 2. Detect objects. NumPy in, NumPy out: an image [h, w] or [h, w, 3] of any size, uint8 or uint16;
#    a file, model("photo.png"), or PIL.Image.open("photo.png"); or a list of images.
images = dataset.load(n=4, size=model.input_shape[:2], seed=7).inputs["image"]
detections = model(images[0])
for box, score, name in zip(detections.boxes, detections.scores, detections.names, strict=True):
    print(f"{name} {score:.2f} at {box.round(1)}")
per_image = model(list(images), threshold=0.5, classes=["person", "vehicle"])
print([len(detections) for detections in per_image], "persons and vehicles")

# 3. Draw.
detections.draw(images[0]).save(output / "detections.png")

# 4. Export: to COCO's result format, and to supervision (pip install supervision) by
#    sv.Detections(**detections.to_supervision()).
rows = [row for i, detections in enumerate(per_image) for row in detections.to_coco(image_id=i)]
(output / "results.json").write_text(json.dumps(rows))
print(detections.to_supervision()["data"])

# 5. Train: a config file with changed fields, and a folder. The same call resumes.
config = configs.load(config_file, ["schedule.steps=20", "schedule.warmup=5"])
config.optimizer.lr = 1e-3
tinyjax.train(config, output / "run")
