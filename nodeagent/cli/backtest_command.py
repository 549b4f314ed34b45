"""`nodeagent backtest`: what rules would have said of clips that are stored."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from nodeagent.backtest.cache import Cache, default_folder
from nodeagent.backtest.clips import Video, files_in, videos_of
from nodeagent.backtest.look import Engine, Eye
from nodeagent.backtest.run import Judged, judged
from nodeagent.backtest.truth import by_rule, parse_truth
from nodeagent.cli.backtest_draw import Report, draw, write_json
from nodeagent.cli.backtest_rules import Asked, Trial, read_trial
from nodeagent.cli.config_files import unknown_labels
from nodeagent.contract.errors import BadModel, ConfigError, Fault
from nodeagent.infra.clock import SystemClock
from nodeagent.infra.commands import print_faults
from nodeagent.infra.exits import ExitCode
from nodeagent.infra.settings.document import read_text
from nodeagent.infra.times import parse_time

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_PLACE = click.Path(exists=True, path_type=Path)
_GB = 1_000_000_000


@click.command()
@click.argument("clips", nargs=-1, required=True, type=_PLACE, metavar="CLIP_OR_FOLDER...")
@click.option("--rules", required=True, type=_FILE, help="TOML with [[rules]] as in a camera's section, or an agent's.")
@click.option("--model", default=None, type=_FILE, help="The model's TOML; left out: what the agent's file names.")
@click.option("--camera", default=None, help="Only this camera's clips, and its section of an agent's file.")
@click.option("--sample-fps", default=None, type=float, help="Samples per second; left out: the file's, else 5.")
@click.option("--start", default=None, help="When videos that no agent recorded begin, as `2026-11-24 08:30`.")
@click.option("--truth", default=None, type=_FILE, help="CSV of what happened: rule,zone,start,end and maybe camera.")
@click.option("--cache", default=None, type=_FOLDER, help="Folder of kept inference; left out: in the user's cache.")
@click.option("--no-cache", is_flag=True, help="Neither use nor keep inference.")
@click.option("--cache-gb", default=2.0, show_default=True, type=click.FloatRange(0.0, 1e6), help="Most that is kept.")
@click.option("--utc", is_flag=True, help="Show UTC instead of the site's time.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, times in UTC ns.")
def backtest(
    clips: tuple[Path, ...],
    rules: Path,
    model: Path | None,
    camera: str | None,
    sample_fps: float | None,
    start: str | None,
    truth: Path | None,
    cache: Path | None,
    no_cache: bool,
    cache_gb: float,
    utc: bool,
    as_json: bool,
) -> None:
    """Try rules on stored clips, faster than real time: prints the episodes that they would have had.

    Exit codes: 0 done, 1 there is no clip or nothing is known of some, 2 faulty files or usage.
    """
    if cache and no_cache:
        raise click.UsageError("--cache does not go with --no-cache")
    kept = None if no_cache else Cache(cache or default_folder(), round(cache_gb * _GB))
    faulty = rules
    try:
        trial = read_trial(rules, Asked(model, camera, sample_fps))
        eye = _eye(trial, kept)
        videos = _videos(clips, start, trial, camera)
        first_ns = min(video.clip.start_ns for video in chain(*videos.values()))
        zone = ZoneInfo(trial.settings.site.time_zone)
        faulty = truth or rules
        events = parse_truth(read_text(truth), truth.name, first_ns, zone) if truth else None
        began_s = time.monotonic()
        done = _judged(trial, videos, eye)
    except ConfigError as exc:
        print_faults(faulty, exc)
        raise click.exceptions.Exit(ExitCode.USAGE) from None
    except BadModel as exc:
        click.echo(str(exc), err=True)
        raise click.exceptions.Exit(ExitCode.USAGE) from None
    if kept:
        kept.tidy()
    episodes = [episode for one in done for episode in one.episodes]
    scores = None if events is None else dict(by_rule(events, episodes))
    report = Report(done, scores, eye.inferred, eye.cached, time.monotonic() - began_s)
    if as_json:
        write_json(report)
    else:
        draw(report, ZoneInfo("UTC") if utc else zone)
    if eye.uncached:
        click.echo(f"inference is not kept: {eye.uncached}", err=True)
    raise click.exceptions.Exit(ExitCode.PROBLEMS if any(one.unknown for one in done) else ExitCode.OK)


def _eye(trial: Trial, kept: Cache | None) -> Eye:
    """What looks at the clips.

    Raises:
        BadModel: the model cannot serve.
        ConfigError: a rule waits for a label that it has not.
    """
    inference = trial.settings.inference
    eye = Eye(Engine(trial.model, inference.threads, inference.batch), kept)
    mine = f"cameras[{trial.index or 0}]."
    names = {model.name for model in trial.settings.models} | {trial.camera.model}
    labels = dict.fromkeys(names, eye.description.labels)
    faults = [fault for fault in unknown_labels(trial.settings, labels) if fault.path.startswith(mine)]
    if faults:
        raise ConfigError(trial.shown(faults))
    return eye


def _videos(clips: Sequence[Path], start: str | None, trial: Trial, camera: str | None) -> dict[str, list[Video]]:
    """Videos by camera; exits when there is none.

    Raises:
        ConfigError: `start` is no time.
    """
    zone = ZoneInfo(trial.settings.site.time_zone)
    try:
        start_ns = None if start is None else parse_time(start, zone, SystemClock().wall_ns())
    except ValueError as exc:
        raise ConfigError([Fault("--start", str(exc))]) from None
    try:
        videos = videos_of(files_in(clips), start_ns, camera)
    except OSError as exc:
        click.echo(f"{exc.filename}: {exc.strerror}", err=True)
        raise click.exceptions.Exit(ExitCode.PROBLEMS) from None
    if not videos:
        click.echo(f"no clips{f' of {camera}' if camera else ''}: expected .mp4 or .mkv files", err=True)
        raise click.exceptions.Exit(ExitCode.PROBLEMS)
    return videos


def _judged(trial: Trial, videos: Mapping[str, Sequence[Video]], eye: Eye) -> list[Judged]:
    return [judged(trial.camera.model_copy(update={"camera_id": name}), many, eye) for name, many in videos.items()]
