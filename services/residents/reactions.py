"""What residents does by itself; it reacts to nobody."""

from services.chassis.db import Database
from services.chassis.reactions import every
from services.residents.staffing import follow_register

__all__ = ["follow_register", "forget_sessions"]


@every(3600, name="forget sessions")
def forget_sessions(database: Database) -> None:
    """Sessions a day after they ended, codes and failed sign-ins after an hour: machine time."""
    with database.transaction() as tx:
        tx.execute("DELETE FROM sessions WHERE expires_at < now() - interval '1 day' OR ended_at < now() - interval '1 day'")
        tx.execute("DELETE FROM sign_in_codes WHERE created_at < now() - interval '1 hour'")
        tx.execute("DELETE FROM failed_sign_ins WHERE at < now() - interval '1 hour'")
