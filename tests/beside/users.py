"""Who acts: the users of the tests, and becoming one."""

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class User:
    name: str
    uid: int
    gid: int
    groups: tuple = ()
    umask: int = 0o022


USERS = (
    User("root", 0, 0),
    User("ann", 1000, 1000, (2000,)),
    User("ben", 1001, 1001, (1000, 2000), 0o002),
    User("cat", 1002, 1000, (), 0o077),
    User("dan", 1003, 1003, (3000, 3001), 0),
)
ROOT = USERS[0]
GROUPS = (0, 1000, 1001, 1003, 2000, 3000, 3001, 4000)


def become(user):
    """This process (of one thread, started by root) acts as `user`; root among the real ids takes it back."""
    os.setresuid(0, 0, 0)
    os.setresgid(user.gid, user.gid, 0)
    os.setgroups(list(user.groups))
    os.umask(user.umask)
    if user.uid != 0:
        os.setresuid(user.uid, user.uid, 0)
