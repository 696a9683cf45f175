"""The section of a report on exported files."""

import json

from tests.reporting.reports import write
from tinyjax import report
from tinyjax.reporting import exported_files, tables
from tinyjax.tasks import get_task

SMALL = {"images": 60, "resamples": 60, "steps": (50, 300), "corrupt": False, "seeds": 1}
FLOAT = {
    "file": "<b>.onnx", "format": "onnx", "bytes": 494864, "sha256": "f", "score": None,
    "parity": {"outputs": {"logits_4": {"relative": 7e-7}, "logits_8": {"relative": 9e-7}}},
    "metadata": {"task": "detect"},
}  # fmt: skip
INT8 = {
    "file": "mine.tflite", "format": "litert", "bytes": 249744, "sha256": "e",
    "parity": {"outputs": {"logits_4": {"relative": 0.57}}},
    "score": {"suite": "val", "metric": "AP50", "run": 0.8259, "file": 0.8224},
    "metadata": {"quantization": "int8"},
    "device": {
        "arena_bytes": 92160, "weight_bytes": 127404, "multiply_adds": 6681472,
        "ethos_u55_128": {
            "cycles": 895808, "milliseconds": 1.7916, "sram_bytes": 348384, "flash_bytes": 173968
        },
    },
}  # fmt: skip


def test_records_of_a_run_and_of_its_folder_exports(tmp_path, without_figures):
    write(tmp_path, sizes=["s-2"], starts=[""], **SMALL)
    (tmp_path / "exports").mkdir()
    (tmp_path / "mine.onnx.json").write_text(json.dumps(FLOAT))
    (tmp_path / "exports" / "mine.tflite.json").write_text(json.dumps(INT8))
    (tmp_path / "exports" / "other.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    exports = exported_files.read(tables.read(tmp_path, get_task))
    assert [export.record for export in exports] == [FLOAT, INT8]

    assert report.main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    _, _, section = html.partition("<h2>Exported files</h2>")
    section, _, _ = section.partition("</section>")
    header, *rows = section.split("<tr>")[1:]
    assert "<th" in header
    texts = [
        [cell.partition("</td>")[0].rpartition(">")[2] for cell in row.split("<td")[1:]]
        for row in rows
    ]
    assert texts == [
        ["&lt;b&gt;.onnx", "onnx", "494.9", "9.0e-07", *[""] * 10],
        [
            "mine.tflite", "litert int8", "249.7", "5.7e-01", "AP50, val", "0.8259", "0.8224",
            "92", "127", "6,681,472", "895,808", "1.79", "348", "174",
        ],
    ]  # fmt: skip


def test_no_section_without_exported_files(tmp_path, without_figures):
    write(tmp_path, sizes=["s-2"], starts=[""], **SMALL)
    assert report.main([str(tmp_path)]) == 0
    assert "Exported files" not in (tmp_path / "report.html").read_text()
