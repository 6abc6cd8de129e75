"""The broker: a Celery application over a folder, or over Redis. Messages are doorbells that carry a run's id.

Nothing is lost with a message: whoever misses it is rung for again by the reconcile task (`trainer/tasks.py`). That is
why a training may take hours on a broker that hands out again what was not acknowledged within its visibility timeout:
a doorbell is acknowledged when it is heard, and the run's row says who works.
"""

import logging
from pathlib import Path
from typing import Any, Literal, get_args

from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError

from infra.runs import Run

# `default` is for what takes milliseconds, and for what surrounds a training on another host; `gpu` is for trainings.
QueueName = Literal["default", "gpu"]
QUEUES: tuple[QueueName, ...] = get_args(QueueName)
# How often the folder is looked at, in seconds; Redis pushes.
POLLING_S = 0.5
RECONCILE_S = 30.0
# What nobody took for so long is not worth hearing. Scheduler and worker may be hosts whose clocks differ by less.
STALE_S = 2 * 86_400
# On Redis nothing here takes longer than to hear a doorbell: what a lost worker took is handed out again after this.
VISIBLE_S = 900
# A Redis that takes what it is sent and answers nothing: how long a command waits for it, and how often the connection
# that a worker listens on is looked after. A worker hears again after twice that, at most.
ANSWER_S = 10
HEALTH_S = 10

log = logging.getLogger(__name__)


def make_app(broker: str, folder: Path, *, schedule: dict[str, Any] | None = None) -> Celery:
    """The Celery application. `broker` is a URL, or empty for queues in `folder`; `schedule` is what beat rings for."""
    app = Celery("understudy")
    app.conf.update(
        broker_url=broker or "filesystem://",
        broker_transport_options=redis_options() if broker else folder_options(folder),
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=5,
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,
        # What cannot be rung now is rung later by the reconcile task: nobody waits for a broker that is down.
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0, "interval_step": 0.5},
        task_queues=[Queue(name) for name in QUEUES],
        task_create_missing_queues=False,
        task_default_queue="default",
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        # The scheduler looks at its clock at least this often.
        beat_max_loop_interval=RECONCILE_S,
        beat_schedule={
            "reconcile": {"task": "trainer.reconcile", "schedule": RECONCILE_S, "options": {"expires": STALE_S}},
            **(schedule or {}),
        },
        timezone="UTC",
    )
    return app


def folder_options(folder: Path) -> dict[str, Any]:
    """Queues as folders: in and out are the same one, since whoever sends also receives."""
    for name in ("messages", "control", "processed"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        "polling_interval": POLLING_S,
    }


def redis_options() -> dict[str, Any]:
    """What kombu is told about Redis: https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html.

    The prefix keeps our keys apart in a database that others use too.
    """
    return {
        "visibility_timeout": VISIBLE_S,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "global_keyprefix": "understudy:",
        "health_check_interval": HEALTH_S,
        "socket_timeout": ANSWER_S,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "max_retries": 2,
    }


def ring(app: Celery, run: Run) -> None:
    """Tell the workers of a run's queue that it waits. A broker that does not answer delays the run, and no more."""
    try:
        app.send_task("trainer.run", kwargs={"run_id": run.id}, queue=run.queue)
    except OperationalError as error:
        log.warning("the queue does not answer (%s); run %s waits until it does", type(error).__name__, run.id)
