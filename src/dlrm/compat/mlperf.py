"""`:::MLLOG` lines of `--mlperf-logging`, for MLPerf's checkers."""

import json
import sys
import time
from typing import Any

from dlrm.compat.flags import Flags


class MLLog:
    """`:::MLLOG` lines on standard output, in the format of MLPerf's own logger.

    Each is a JSON object of namespace, time_ms, event_type, key, value and metadata, which names
    the line of code beside what the caller adds. Nothing is printed unless it is `enabled`.
    """

    def __init__(self, *, enabled: bool):
        self.enabled = enabled
        self._epoch: int | None = None

    def event(self, key: str, value: Any, **metadata: Any) -> None:
        """Say what happened, or what a setting is."""
        self._print("POINT_IN_TIME", key, value, metadata)

    def start(self, key: str, **metadata: Any) -> None:
        """Begin an interval."""
        self._print("INTERVAL_START", f"{key}_start", None, metadata)

    def stop(self, key: str, **metadata: Any) -> None:
        """End an interval."""
        self._print("INTERVAL_END", f"{key}_stop", None, metadata)

    def settings(self, flags: Flags) -> None:
        """Say what is trained, and by whom as the original does."""
        reference = "reference_implementation"
        events = {
            "submission_benchmark": "dlrm",
            "submission_org": reference,
            "submission_division": "closed",
            "submission_status": "onprem",
            "submission_platform": reference,
            "submission_entry": reference,
            "submission_poc_name": reference,
            "submission_poc_email": reference,
            "seed": flags.numpy_rand_seed,
            "global_batch_size": flags.mini_batch_size,
            "opt_base_learning_rate": flags.learning_rate,
            "opt_learning_rate_warmup_steps": flags.lr_num_warmup_steps,
            "sgd_opt_base_learning_rate": flags.learning_rate,
            "lr_decay_start_steps": flags.lr_decay_start_step,
            "sgd_opt_learning_rate_decay_steps": flags.lr_num_decay_steps,
            "sgd_opt_learning_rate_decay_poly_power": 2,
        }
        for key, value in events.items():
            self.event(key, value)

    def epoch(self, number: int) -> None:
        """Begin an epoch, numbered from 0, where it is not the one that has begun."""
        if number == self._epoch:
            return
        self._stop_epoch()
        self._epoch = number
        self.start("block", first_epoch_num=number + 1, epoch_count=1)
        self.start("epoch", epoch_num=number + 1)

    def stop_run(self, *, success: bool) -> None:
        """End the run."""
        self._stop_epoch()
        self.stop("run", status="success" if success else "aborted")

    def _stop_epoch(self) -> None:
        if self._epoch is not None:
            self.stop("epoch", epoch_num=self._epoch + 1)
            self.stop("block", first_epoch_num=self._epoch + 1)

    def _print(self, event_type: str, key: str, value: Any, metadata: dict[str, Any]) -> None:
        if not self.enabled:
            return
        caller = sys._getframe(2)
        place = {"file": caller.f_code.co_filename, "lineno": caller.f_lineno}
        line = {
            "namespace": "",
            "time_ms": round(time.time() * 1000),
            "event_type": event_type,
            "key": key,
            "value": value,
            "metadata": {**metadata, **place},
        }
        print(f":::MLLOG {json.dumps(line)}", flush=True)
