"""A small search from end to end, with real exports, accelerators and files."""

from itertools import count

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import SPACE, WIDER, images, job

from nashc import artifact
from nashc.cli import run
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.importer import import_model
from nashc.nas.architecture import parse
from nashc.nas.job import load_job, save_job
from nashc.nas.network import network_of
from nashc.nas.pairs import PARETO_FILE, Found, Pareto, candidates, chosen, load, rival_of, save
from nashc.nas.proxies import combined
from nashc.nas.search import CONV, HYBRID, Worker, pricing, read_inputs
from nashc.nas.study import History, open_history
from nashc.report.html.pareto import pareto_data
from nashc.report.search import join_shown, search_report, search_shown
from nashc.report.text import render

DESIGN_SECONDS = 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def made(folder):
    return search_shown(job(folder), folder / "out", None, DESIGN_SECONDS)


def test_what_was_found_is_in_the_file(folder, made):
    assert load(folder / "out") == made
    asked = job(folder)
    assert made.job == msgspec.structs.replace(asked, images=read_inputs(asked).digest)


def test_all_candidates_are_there_and_none_twice(made):
    assert len(made.candidates) == made.job.candidates
    assert len({c.architecture for c in made.candidates}) == made.job.candidates
    assert [c.number for c in made.candidates] == sorted(c.number for c in made.candidates)


def test_the_front_of_a_family_is_what_none_of_it_beats(made):
    for c in made.candidates:
        own = [o for o in made.candidates if o.family == c.family and o is not c]
        beaten = any(
            o.score >= c.score and o.coarse_fps >= c.coarse_fps and (o.score, o.coarse_fps) != (c.score, c.coarse_fps)
            for o in own
        )
        assert not (beaten and c.pareto)
        assert beaten or c.pareto or (c.score, c.coarse_fps) in [(o.score, o.coarse_fps) for o in own if o.pareto]


def test_families_are_what_the_networks_are(made):
    for c in made.candidates:
        assert (c.family == CONV) == (c.macs["shift"] == c.macs["adder"] == 0)
        assert c.score == sum(c.macs.values())  # of the proxy "flops"


def test_coarse_speeds_are_those_of_the_pricing(made):
    prices = pricing(made.job)
    for c in made.candidates:
        assert c.coarse_fps == prices.fps(parse(c.architecture, WIDER))


def test_every_pair_has_a_model_and_a_design_of_its_network(folder, made):
    assert made.pairs
    for pair in made.pairs:
        found, own = made.candidates[pair.candidate], folder / "out" / pair.folder
        onnx.checker.check_model(own / "model.onnx")
        compiled = artifact.load(own / "design.json")
        assert (compiled.design.fps, compiled.design.latency_ms) == (pair.fps, pair.latency_ms)
        network = import_model(own / "model.onnx").network
        assert network.macs == sum(found.macs.values()) == network_of(parse(found.architecture, WIDER), WIDER).macs
        assert (pair.dsp_fps is not None) == (found.family == CONV)


def test_the_pages_link_every_design(folder, made):
    page = (folder / "out" / "pareto.html").read_text()
    for pair in made.pairs:
        assert f'"link":"{pair.folder}/report.html"' in page
        assert f'"fps":{pair.fps}' in (folder / "out" / pair.folder / "report.html").read_text()


def test_the_rival_has_the_score_of_the_pair_where_one_of_convolutions_has(made):
    pairs = [p for p in made.pairs if made.candidates[p.candidate].family == HYBRID]
    assert len(pairs) == made.job.pairs
    for pair in pairs:
        score = made.candidates[pair.candidate].score
        rival = made.candidates[made.pairs[pair.rival].candidate]
        assert rival.family == CONV
        as_good = [c for c in made.candidates if c.family == CONV and c.score >= score]
        if as_good:
            assert rival.score >= score
            assert rival.coarse_fps == max(c.coarse_fps for c in as_good)
        else:
            assert rival.score == max(c.score for c in made.candidates if c.family == CONV)


def test_a_rival_is_as_fast_as_the_faster_of_its_designs(folder, made, tmp_path):
    """Where the search of the larger space ends at a slower design than that of DSPs alone, that one counts."""
    first = next(p for p in made.pairs if p.rival >= 0)
    for dsp_fps, fastest in ((first.fps * 4, first.fps * 4), (first.fps / 4, first.fps * 2), (None, first.fps * 2)):
        pairs = list(made.pairs)
        pairs[first.rival] = msgspec.structs.replace(pairs[first.rival], fps=first.fps * 2, dsp_fps=dsp_fps)
        changed = msgspec.structs.replace(made, pairs=tuple(pairs))
        shown = " ".join(render(search_report(changed, folder / "out"), 120, color=False).split())
        assert f"pair is {first.fps / fastest:.2f}x" in shown
        save(changed, tmp_path)
        drawn = pareto_data(tmp_path / PARETO_FILE, tmp_path / "pareto.html")["chosen"]
        beside = next(pair["rival"] for pair in drawn if pair["name"] == first.folder)
        assert beside["fps"] == fastest


def test_nothing_is_scored_again_when_it_goes_on(folder, made, monkeypatch):
    monkeypatch.setattr(Worker, "one", lambda _: pytest.fail("scored again"))
    assert join_shown(folder / "out", None) == 0
    history = open_history(made.job, folder / "out")
    assert [s.number for s in history.scored()] == [c.number for c in made.candidates]


@pytest.mark.parametrize("changes", [{"seed": 1}, {"candidates": 25}, {"limits": Options(max_lut=20_000)}])
def test_another_search_in_the_folder_is_refused(folder, made, changes):
    before = (folder / "out" / "pareto.json").read_bytes()
    with pytest.raises(NashcError, match=r"out: the folder holds another search; give another -o, or"):
        search_shown(job(folder, **changes), folder / "out", None, DESIGN_SECONDS)
    assert (folder / "out" / "pareto.json").read_bytes() == before
    assert load_job(folder / "out") == made.job


def test_the_same_seed_finds_the_same(folder, made):
    (folder / "again").mkdir()
    worker = Worker(made.job, History(f"sqlite:///{folder}/again/study.db", "again", "{}"))
    assert worker.run() == made.job.candidates
    assert [s.architecture for s in worker.history.scored()] == [c.architecture for c in made.candidates]


def test_a_search_out_of_time_keeps_what_it_has_and_goes_on(folder, tmp_path):
    asked = job(folder)
    history = History(f"sqlite:///{tmp_path}/study.db", "short", "{}")
    worker, turns = Worker(asked, history), count()
    while next(turns) < 3:
        worker.one()
    assert worker.run(seconds=0.0) == 0
    assert len(history.scored()) == 3
    assert Worker(asked, History(f"sqlite:///{tmp_path}/study.db", "short", "{}")).run() == asked.candidates - 3


def test_a_search_ends_where_the_space_does(folder, tmp_path):
    asked = job(folder, space=SPACE, candidates=100)
    worker = Worker(asked, History(f"sqlite:///{tmp_path}/study.db", "small", "{}"))
    assert worker.run() == SPACE.size
    assert len(worker.history.architectures()) == SPACE.size


def test_candidates_below_the_least_speed_are_not_scored(folder, made, tmp_path):
    least = float(np.median([c.coarse_fps for c in made.candidates]))
    asked = job(folder, min_fps=least)
    worker = Worker(asked, History(f"sqlite:///{tmp_path}/study.db", "quick", "{}"))
    worker.run()
    assert min(s.fps for s in worker.history.scored()) >= least


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"min_fps": 1e12}, r"no architecture of 'wider' reaches 1e\+12 FPS; lower --min-fps"),
        ({"limits": Options(max_lut=100)}, "no network of 'wider' fits; raise --max-lut"),
        ({"proxy": "flop"}, "unknown proxy 'flop'; did you mean 'flops'"),
        ({"pairs": 25}, "25 pairs of 24 candidates"),
        ({"candidates": 0}, "of 0 candidates"),
        ({"target": "fpga-zc760"}, "did you mean 'fpga-zc706'"),
        ({"space": msgspec.structs.replace(SPACE, channels=2)}, "tiny: images of 2 channels"),
    ],
)
def test_what_cannot_be_searched_is_said(folder, tmp_path, changes, text):
    with pytest.raises(NashcError, match=text):
        search_shown(msgspec.structs.replace(job(folder), **changes), tmp_path / "out", None, DESIGN_SECONDS)
    assert not (tmp_path / "out" / "pareto.json").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 1}', "\xff"])
@pytest.mark.parametrize(("name", "read"), [("search.json", load_job), ("pareto.json", load)])
def test_a_file_that_is_none_is_named(tmp_path, name, read, text):
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(NashcError, match=f"{name}: no "):
        read(tmp_path)


def test_a_job_is_read_back_equal(tmp_path):
    asked = job(tmp_path, limits=Options(batch=2, max_latency_ms=1.5), storage="postgresql://host/db", min_fps=3.0)
    save_job(asked, tmp_path / "made")
    assert load_job(tmp_path / "made") == asked


FOUND = st.builds(
    Found, number=st.just(0), family=st.sampled_from([HYBRID, CONV]), architecture=st.just(""),
    score=st.integers(0, 6).map(float), coarse_fps=st.integers(1, 6).map(float), macs=st.just({}), pareto=st.booleans(),
)  # fmt: skip


@given(st.lists(FOUND, max_size=10), st.integers(1, 4))
def test_pairs_are_hybrids_of_the_front_from_the_best_score_down(found, wanted):
    picked = chosen(found, wanted)
    able = sorted((f.score for f in found if f.pareto and f.family == HYBRID), reverse=True)
    assert len(picked) == len(set(picked)) == min(wanted, len(able))
    assert all(found[i].pareto and found[i].family == HYBRID for i in picked)
    scores = [found[i].score for i in picked]
    assert scores == sorted(scores, reverse=True)
    assert scores[:1] == able[:1]


@given(st.lists(FOUND, min_size=1, max_size=10))
def test_the_rival_is_the_fastest_that_is_as_good(found):
    rival, convs = rival_of(found, 0), [f for f in found if f.family == CONV]
    assert (rival is None) == (not convs)
    if rival is not None:
        pool = [f for f in convs if f.score >= found[0].score] or [
            f for f in convs if f.score == max(c.score for c in convs)
        ]
        assert found[rival] in pool
        assert found[rival].coarse_fps == max(f.coarse_fps for f in pool)


def test_a_proxy_that_gives_no_number_ends_with_a_file_that_can_be_read(folder, tmp_path):
    asked = job(folder)
    history = History(f"sqlite:///{tmp_path}/study.db", "no number", "{}")
    for value, name in ((float("nan"), "4/4:c3"), (1.0, "4/4:s3"), (float("-inf"), "4/4:a3")):
        claim = history.begin()
        assert history.claim(claim, HYBRID, name)
        assert history.record(claim, {"flops": value}, float(combined([{"flops": value}])[0]), 1.0)
    made = Pareto(job=asked, candidates=candidates(asked, history), pairs=())
    save(made, tmp_path)
    assert load(tmp_path) == made
    assert made.candidates[1].score > made.candidates[0].score == made.candidates[2].score


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "nashc search: missing --space, --target, --data, --out; or join one: --join FOLDER"),
        (["--target", "fpga-zc706", "--data", "x", "-o", "y"], "nashc search: missing --space;"),
        (["--join", "nowhere", "--pairs", "2"], "nashc search: no effect with --join: --pairs; leave it out"),
        (["--join", "nowhere", "--max-lut", "9", "--seed", "0"], "no effect with --join: --seed, --max-lut"),
        (["--model", "m.onnx", "--space", "resnet-cifar"], "no effect with --model: --space"),
        (["--strategy", "nasa", "--candidates", "9"], "no effect with --strategy: --candidates"),
        (["--epochs", "9"], "no effect without --strategy: --epochs"),
        (["--join", "nowhere"], "nowhere: there is no search.json; start it with `nashc search -o FOLDER`"),
    ],
)
def test_the_command_says_what_is_missing(capsys, flags, text):
    assert run(["search", *flags]) == 2
    assert text in capsys.readouterr().err


def test_the_command_goes_on_with_the_folder(folder, made, capsys):
    assert run(["search", "--join", str(folder / "out")]) == 0
    assert f"scored 0 candidates of {folder / 'out'}" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"target": "fpga-none"}, {"data": "/no/such/data"}, {"accelerator": "/none.json"}])
def test_what_cannot_be_read_leaves_no_search_behind(changes, tmp_path):
    with pytest.raises(NashcError):
        search_shown(job(tmp_path, **changes), tmp_path / "out", None, DESIGN_SECONDS)
    assert not (tmp_path / "out").exists()


def test_searches_on_other_images_are_other_searches(tmp_path):
    asked = job(tmp_path)
    first = msgspec.structs.replace(asked, images=read_inputs(asked).digest)
    x, y = images(seed=9)
    np.savez(tmp_path / "other.npz", x=x.transpose(0, 2, 3, 1), y=y)
    other = msgspec.structs.replace(asked, data=str(tmp_path / "other.npz"))
    second = msgspec.structs.replace(other, images=read_inputs(other).digest)
    assert open_history(first, tmp_path).name != open_history(second, tmp_path).name
    with pytest.raises(NashcError, match="other images than those of the search"):
        Worker(msgspec.structs.replace(other, images=first.images), open_history(first, tmp_path))
