"""The page of a run: one file that needs nothing else, and says all that the run found."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from made_results import made_result

from benchmarks.page import main, write_page
from benchmarks.page_charts import forest, histogram_card

ROWS = (("model.onnx", "", 80.0), ("PyTorch <eager>", "torch", 50.0))


class Outline(HTMLParser):
    """Text, and what would be loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.text, self.loads, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def outline(path):
    told = Outline()
    told.feed(path.read_text(encoding="utf-8"))
    told.close()
    return told


@pytest.fixture
def run():
    result = made_result(ROWS)
    result["warnings"] = ["other programs kept this machine busy"]
    result["rows"].append(
        {
            "name": "model.engine",
            "role": "ours",
            "peer": "",
            "generator": "unet",
            "status": "not run",
            "why": "model.engine needs an NVIDIA GPU",
        }
    )
    return result


def test_the_page_tells_conditions_rows_peers_and_how_to_do_it_again(tmp_path, run):
    write_page(run, tmp_path / "page.html")
    told = outline(tmp_path / "page.html")
    text = " ".join(" ".join(told.text).split())
    for word in (
        "Made-up CPU, 2 threads",
        "other programs kept this machine busy",
        "built-in video, 640x480",
        "100 of each row, in 10 rounds",
        "model.engine needs an NVIDIA GPU",
        "As its documentation says is fastest.",
        "nearest rank, in milliseconds",
        run["settings"]["command"],
        "PyTorch <eager>",
    ):
        assert word in text
    assert text.index("kept this machine busy") < text.index("infer")
    assert told.tags.count("svg") == 1 + 2


def test_nothing_comes_from_the_network_and_dark_screens_are_thought_of(tmp_path, run):
    write_page(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert outline(tmp_path / "page.html").loads == []
    assert not re.search(r"https?:|url\(|@import", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme:dark" in page


def test_every_figure_of_the_table_is_that_of_the_file(tmp_path, run):
    write_page(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    values = [float(value) for value in re.findall(r"<td class=n data-value=([\d.e+-]+)>", page)]
    for row in run["rows"][:2]:
        stages = row["latency"]["stages_ms"]
        for stage in ("infer", "end_to_end"):
            for name in ("p50", "p99"):
                assert stages[stage][name] in values
        assert row["latency"]["fps"] in values


def test_columns_that_no_row_has_are_left_out_and_come_where_one_has_them(tmp_path, run):
    page = tmp_path / "page.html"
    write_page(run, page)
    assert "millijoules" not in page.read_text()
    run["rows"][0]["energy"] = {"mj_per_frame_total": 812.4}
    run["rows"][0]["device_ms"] = {"gpu_compute": run["rows"][0]["inference_alone_ms"]}
    write_page(run, page)
    told = page.read_text()
    assert "millijoules" in told
    assert "data-value=812.4>812" in told
    assert "gpu_compute" in told


def test_a_peer_that_is_the_faster_one_is_marked():
    ratio = {"slow": "ours", "fast": "peer", "value": 1.5, "low": 1.4, "high": 1.6}
    assert "class=lost" in forest([(ratio, True)], "unet")
    assert "class=lost" not in forest([(ratio, False)], "unet")


def test_outliers_beyond_the_fence_are_counted_and_not_drawn():
    row = made_result(ROWS)["rows"][0]
    told = row["latency"]["stages_ms"]["end_to_end"]
    told["histogram"] = {"edges_ms": [80.0, 82.0, 84.0, 150.0], "counts": [60, 37, 3]}
    told["outliers"] = 3
    card = histogram_card(row, 0)
    assert "3 beyond 84.0 ms not drawn" in card
    assert card.count("<title>") == 2


def test_the_command_writes_the_page_of_a_file_and_refuses_another_schema(tmp_path, run, capsys):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(run))
    assert main([str(path), str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    path.write_text(json.dumps({"schema": 1}))
    assert main([str(path), str(tmp_path / "other.html")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "schema 1" in err
    assert not (tmp_path / "other.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_a_click_on_a_heading_sorts_the_rows_in_a_real_browser(tmp_path, run):
    page = tmp_path / "page.html"
    write_page(run, page)
    told = page.read_text()
    click = "document.querySelectorAll('table.rows th button')[2].click();"
    page.write_text(told.replace("</script>", click + "</script>"))
    ran = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            f"--user-data-dir={tmp_path / 'profile'}",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    body = ran.stdout.partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.index("PyTorch") < body.index("model.onnx"), "50 ms before 80 ms"
    assert 'aria-sort="ascending"' in ran.stdout
