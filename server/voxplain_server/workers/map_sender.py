"""Puts maps into shared memory and announces them to the front."""

from __future__ import annotations

import os

from voxplain.worker.v1 import worker_pb2

from voxplain_server.methods.estimate import Estimate
from voxplain_server.workers.channel import Channel
from voxplain_server.workers.map_making import MadeMap, MapMaker
from voxplain_server.workers.memory import memory_of


class MapSender:
    """Sends the maps of one call.

    Args:
        call: its number.
        channel: to the front.
        maker: makes them.
    """

    def __init__(self, *, call: int, channel: Channel[worker_pb2.Command], maker: MapMaker) -> None:
        self._call = call
        self._channel = channel
        self._maker = maker
        self._sent = 0
        self._labels: dict[str, list[str]] = {}

    def send(self, key: str, estimate: Estimate, *, snapshot: bool, evaluations: int) -> None:
        """Send the maps of an estimate.

        A map that is constant on features goes, as a snapshot, by one value for each label; the labels go once.
        """
        if not snapshot:
            for made in self._maker.final(estimate):
                self._send(key, made, evaluations, sha256=made.sha256())
            return
        if estimate.by_feature is None:
            for made in self._maker.snapshot(estimate):
                self._send(key, made, evaluations)
            return
        if key not in self._labels:
            self._labels[key] = [
                self._send(key, made, evaluations) for made in self._maker.labels(estimate.by_feature.features)
            ]
        ids = self._labels[key]
        for number, made in enumerate(self._maker.values_by_label(estimate)):
            made.header.labels_id = ids[number % len(ids)]
            self._send(key, made, evaluations)

    def _send(self, key: str, made: MadeMap, evaluations: int, *, sha256: str = "") -> str:
        self._sent += 1
        header = made.header
        header.id, header.method_key, header.evaluations_done = f"{key}-{self._sent}", key, evaluations
        descriptor = memory_of(made.values)
        try:
            told = worker_pb2.MapMade(header=header, sha256=sha256)
            self._channel.send(worker_pb2.Event(call=self._call, map_made=told), [descriptor])
        finally:
            os.close(descriptor)
        return header.id
