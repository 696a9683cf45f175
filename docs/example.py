"""The five most common things from Python. After `make quickstart`, from the repository's root:

.venv/bin/python docs/example.py
"""

import json
import sys
from pathlib import Path

import tinyjax
from tinyjax import config as configs
from tinyjax.data.synthetic import dataset

run, recipe = sys.argv[1:] or ("runs/quickstart", "configs/quickstart.py")
out = Path("runs/example")
out.mkdir(parents=True, exist_ok=True)

# 1. Load a trained network: a run folder; or weights/<name>.safetensors, which with the .json
#    beside it is all that another machine needs.
model = tinyjax.load(run)
print(model)

# 2. Find objects. NumPy in, NumPy out: an image [h, w] or [h, w, 3] of any size, uint8 or uint16,
#    such as np.asarray(PIL.Image.open("photo.png")); or several of them as a list.
images = dataset.load(n=4, size=model.frame[:2], seed=7).images
found = model(images[0])
for box, score, name in zip(found.boxes, found.scores, found.names, strict=True):
    print(f"{name} {score:.2f} at {box.round(1)}")
several = model(list(images), threshold=0.5, classes=["person", "vehicle"])
print([len(one) for one in several], "persons and vehicles")

# 3. Draw.
found.draw(images[0]).save(out / "found.png")

# 4. Hand over: to COCO's format of results, and to supervision (pip install supervision) by
#    sv.Detections(**found.to_supervision()).
rows = [row for number, one in enumerate(several) for row in one.to_coco(image_id=number)]
(out / "results.json").write_text(json.dumps(rows))
print(found.to_supervision()["data"])

# 5. Train: a config file, what you change of it, and a folder. The same call resumes.
config = configs.load(recipe, ["schedule.steps=20", "schedule.warmup=5"])
config.optimizer.lr = 1e-3
tinyjax.train(config, out / "run")
