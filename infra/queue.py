"""The broker: a Celery application over a folder, or over Redis. Messages are doorbells that carry a run's id.

Nothing is lost with a message: whoever misses it is rung for again by the reconcile task (`trainer/tasks.py`).
"""

from pathlib import Path
from typing import Any

from celery import Celery

# How often the folder is looked at, in seconds; Redis pushes.
POLLING_S = 0.5
RECONCILE_S = 30.0


def make_app(broker: str, folder: Path, *, schedule: dict[str, Any] | None = None) -> Celery:
    """The Celery application. `broker` is a URL, or empty for queues in `folder`; `schedule` what beat rings for."""
    app = Celery("understudy")
    transport: dict[str, Any] = {}
    if not broker:
        for name in ("messages", "control", "processed"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # In and out are the same folder: whoever sends also receives.
        transport = {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
            "polling_interval": POLLING_S,
        }
    app.conf.update(
        broker_url=broker or "filesystem://",
        broker_transport_options=transport,
        broker_connection_retry_on_startup=True,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue="understudy",
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        beat_schedule_filename=str(folder / "beat"),
        beat_schedule={
            # A message that nobody took meanwhile is followed by the next one.
            "reconcile": {"task": "trainer.reconcile", "schedule": RECONCILE_S, "options": {"expires": RECONCILE_S}},
            **(schedule or {}),
        },
        timezone="UTC",
    )
    return app


def ring(app: Celery, run_id: str) -> None:
    """Tell the workers that a run waits."""
    app.send_task("trainer.run", kwargs={"run_id": run_id})
