"""The tables of schedules, their firings and the messages about them."""

from __future__ import annotations

import sqlalchemy as sa

from cluster.database import DatabaseBusy, DatabaseError, Kind

metadata = sa.MetaData()
schedules = sa.Table(
    "musweep_schedule",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("cron", sa.Text, nullable=False),
    sa.Column("zone", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("overrides", sa.Text, nullable=False),
    sa.Column("protocol", sa.Text),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("overlap", sa.Text, nullable=False),
    sa.Column("catch_up", sa.Text, nullable=False),
    sa.Column("deadline_s", sa.Float),
    sa.Column("jitter_s", sa.Float, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("notify", sa.Text, nullable=False),
    sa.Column("notify_when", sa.Text, nullable=False),
    sa.Column("ping", sa.Text),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column("cursor", sa.Float, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
)
firings = sa.Table(
    "musweep_firing",
    metadata,
    sa.Column("schedule", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, primary_key=True),
    sa.Column("manual", sa.Boolean, nullable=False),
    sa.Column("late", sa.Boolean, nullable=False),
    sa.Column("begins", sa.Float, nullable=False),
    sa.Column("sweep", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("claimed", sa.Float, nullable=False),
    sa.Column("started", sa.Float),
    sa.Column("ended", sa.Float),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("sentence", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("night", sa.Text, nullable=False),
)
messages = sa.Table(
    "musweep_message",
    metadata,
    sa.Column("schedule", sa.Text, primary_key=True),
    sa.Column("event", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("again", sa.Float, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("claimed", sa.Float, nullable=False),
)


class ScheduleError(DatabaseError):
    """Something about a schedule that a person can put right, in one line."""


class ScheduleBusy(DatabaseBusy, ScheduleError):
    """The schedules' database did not answer in time; it may a while later."""


SCHEDULES = Kind("schedule", (metadata.create_all,), ScheduleError, ScheduleBusy)
