"""The tables as the admin's lists read them. What writes, and what a run touches, is plain SQL elsewhere.

`jobs.secret_cfg` is not mapped on purpose: no page that is made from these classes can show it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import BigInteger, DateTime, Text, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column

from connecthub.storage.sessions import IDLE_HOURS


class Base(DeclarativeBase):
    """Base of the mapped tables."""


class Job(Base):
    """A row of the list of Jobs."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    enabled: Mapped[bool]
    cron_expr: Mapped[str] = mapped_column(Text)
    timezone: Mapped[str] = mapped_column(Text)
    handler_path: Mapped[str] = mapped_column(Text)
    last_run_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    next_run_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    schedule_from: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    schedule_error: Mapped[str | None] = mapped_column(Text)


class JobLog(Base):
    """A run, as far as SQLAdmin has to know it."""

    __tablename__ = "job_logs"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    job_id: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    queued_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Session(Base):
    """A session as the list of users counts it; its token is not mapped."""

    __tablename__ = "sessions"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    username: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    last_seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class User(Base):
    """A row of the list of users. `users.password_hash` is not mapped on purpose."""

    __tablename__ = "users"

    username: Mapped[str] = mapped_column(Text, primary_key=True)
    role: Mapped[str] = mapped_column(Text)
    disabled: Mapped[bool]
    must_change_password: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    last_login_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    sessions: Mapped[int] = column_property(
        select(func.count())
        .select_from(Session)
        .where(
            Session.username == username,
            Session.expires_at > func.clock_timestamp(),
            Session.last_seen_at > func.clock_timestamp() - timedelta(hours=IDLE_HOURS),
        )
        .scalar_subquery()
    )
