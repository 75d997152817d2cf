"""Where an explanation stands, in a few words."""

from __future__ import annotations

from voxplain.errors import CheckpointRefused

from voxplain_client.events import Accepted, Event, Prediction, Progress, Resuming

_STAGES = {
    Progress.STAGE_QUEUED: "waiting for a worker",
    Progress.STAGE_RECEIVING: "sending volumes",
    Progress.STAGE_PREPARING: "preparing the case",
    Progress.STAGE_COMPUTING: "computing",
    Progress.STAGE_SENDING: "receiving maps",
}


def describe_stage(progress: Progress) -> str:
    """Stage, queue place, bytes sent and the time until the end, as far as known."""
    parts = [_STAGES.get(progress.stage, "working")]
    if progress.stage == Progress.STAGE_QUEUED:
        parts.append(f"{progress.queue_position} ahead")
    if progress.stage == Progress.STAGE_RECEIVING and progress.bytes_total:
        parts.append(f"{progress.bytes_received / 2**20:.0f} of {progress.bytes_total / 2**20:.0f} MiB")
    if progress.HasField("time_left"):
        parts.append(f"{describe_seconds(progress.time_left.ToNanoseconds() / 1e9)} left")
    return ", ".join(parts)


def describe_turn(event: Event) -> str:
    """One line about an event that changes the course; empty for others."""
    if isinstance(event, Accepted):
        cautions = "".join(f"\ncaution {one.code}: {one.description}" for one in event.cautions)
        return f"{event.model} {event.version} accepted the request{cautions}"
    if isinstance(event, Prediction):
        return f"the model answers; explained score {event.score:.4g} of {event.target_name or 'its output'}"
    if isinstance(event, Resuming):
        way = "going on from the last checkpoint" if event.from_checkpoint else "starting over"
        lost, refused = event.fault.reason == "CONNECTION_LOST", isinstance(event.fault, CheckpointRefused)
        # "leave it out" is said to programs; the client has just done it.
        told = event.fault.message.replace("; leave it out to start anew", "") if refused else event.fault.message
        what = "the connection was lost" if lost else told
        return f"{what} ({event.fault.reason}); {way} in {describe_seconds(event.wait_s)}"
    return ""


def describe_seconds(seconds: float) -> str:
    """ "4 min 40 s" and the like."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"
