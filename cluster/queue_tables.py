"""The queue's tables."""

from __future__ import annotations

import sqlalchemy as sa

from cluster.database import DatabaseBusy, DatabaseError, Kind

metadata = sa.MetaData()
entries = sa.Table(
    "musweep_queue",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False, index=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("cpus", sa.Float, nullable=False),
    sa.Column("gpus", sa.Float, nullable=False),
    sa.Column("workers", sa.Integer, nullable=False),
    sa.Column("least", sa.Integer, nullable=False),
    sa.Column("granted", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("wanted", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("starts", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("passed", sa.Integer, nullable=False),
    sa.Column("package", sa.Text, nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("spec_hash", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("submitted", sa.Float, nullable=False),
    sa.Column("started", sa.Float),
    sa.Column("ended", sa.Float),
    sqlite_autoincrement=True,
)
leases = sa.Table(
    "musweep_queue_lease",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("beat", sa.Integer, nullable=False),
    sa.Column("expires", sa.DateTime(timezone=True)),
    sa.Column("seen", sa.Float, nullable=False),
)


class QueueError(DatabaseError):
    """Something about the queue that a person can put right, in one line."""


class QueueBusy(DatabaseBusy, QueueError):
    """The queue's database did not answer in time; it may a while later."""


QUEUE = Kind("queue", (metadata.create_all,), QueueError, QueueBusy)
