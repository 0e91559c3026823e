from __future__ import annotations

from datetime import timedelta

import pytest

from lakeward_plugins.aws.account import Account, credentials

SECOND = timedelta(seconds=1)


def test_a_session_has_the_credentials_of_now_and_knows_the_services_already(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account("eu-central-1", "http://127.0.0.1:9", "", (None, None, None), SECOND, SECOND)
    known = []
    for name in ("first", "second", "third"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"secret of the {name}")
        session = account.session()
        assert credentials(session) == (name, f"secret of the {name}", "")
        assert account.client(session).meta.region_name == "eu-central-1"
        known.append(session._session.get_component("data_loader"))
    assert known[0] is known[1] is known[2]  # it keeps what it read
    assert len(known[0].search_paths) == len(set(known[0].search_paths))
