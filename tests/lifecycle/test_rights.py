"""What the notes may do in a store that checks rights."""

from __future__ import annotations

import pytest

from airflow_provider_odirouter.errors import StorageError
from airflow_provider_odirouter.lifecycle.cleanup import main
from airflow_provider_odirouter.lifecycle.state import RequestStore
from airflow_provider_odirouter.lifecycle.state_files import NotesOfBoth
from airflow_provider_odirouter.models import Spending
from tests.conftest import DictStore
from tests.lifecycle.conftest import INTENT, REQUEST, Try, note
from tests.object_store import S3

DONE = REQUEST.model_copy(update={"done": True}).model_dump_json()


def test_a_store_that_grants_no_deletion_is_enough(a_try: Try, s3: S3) -> None:
    with s3.checking_rights("s3:PutObject", "s3:GetObject", "s3:ListBucket", "s3:AbortMultipartUpload") as conn_id:
        url = s3.url("out")
        RequestStore(a_try(1, path=url, conn_id=conn_id)).note(INTENT)
        RequestStore(a_try(2, path=url, conn_id=conn_id)).note(REQUEST)
        assert RequestStore(a_try(3, path=url, conn_id=conn_id)).recall() == REQUEST
        RequestStore(a_try(3, path=url, conn_id=conn_id)).forget(Spending())
        assert RequestStore(a_try(4, path=url, conn_id=conn_id)).recall() is None


def test_a_store_that_lists_nothing_is_reported_before_anything_is_paid(a_try: Try, s3: S3) -> None:
    with s3.checking_rights("s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload") as conn_id:
        request_store = RequestStore(a_try(1, path=s3.url("out"), conn_id=conn_id))
        with pytest.raises(StorageError, match=r"cannot be listed: s3://.*Access Denied.*durable=False"):
            request_store.note(INTENT)
    assert s3.objects() == {}


def test_where_an_older_airflow_could_list_nothing_it_has_left_nothing(a_try: Try, store: DictStore, s3: S3) -> None:
    with s3.checking_rights("s3:PutObject") as conn_id:
        request_store = RequestStore(NotesOfBoth(store, a_try(2, path=s3.url("out"), conn_id=conn_id)))
        assert request_store.recall() is None


def test_a_store_that_lets_nothing_go_is_an_error_in_words(s3: S3, capsys: pytest.CaptureFixture[str]) -> None:
    note(s3.url("out", conn_id=s3.conn_id), "done", DONE, days_ago=31)
    with s3.checking_rights("s3:GetObject", "s3:ListBucket") as conn_id:
        assert main([s3.url("out"), "--storage-conn-id", conn_id]) == 1
    assert "cannot be cleaned up: Access Denied" in capsys.readouterr().err
    assert len(s3.objects()) == 1
