"""Pictures in a store that speaks S3: in, out, and everything that can be wrong with it before anything is paid."""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

import pytest
from airflow.sdk.io import store as airflow_stores

from airflow_provider_odirouter.batch.report import write_manifest
from airflow_provider_odirouter.batch.state import BatchStore
from airflow_provider_odirouter.errors import StorageError
from airflow_provider_odirouter.images import landing
from airflow_provider_odirouter.images.inputs import MAX_INPUT_BYTES, Inputs, read_inputs
from airflow_provider_odirouter.images.landing import land, probe
from airflow_provider_odirouter.models import LandedOutput, OutputFile
from airflow_provider_odirouter.storage import files
from airflow_provider_odirouter.storage.files import read
from airflow_provider_odirouter.storage.paths import storage_path
from airflow_provider_odirouter.storage.store_errors import describe_error, open_store
from tests.batch.conftest import read_edits
from tests.conftest import join_jobs
from tests.images.conftest import Paint
from tests.images.test_inputs import encoded
from tests.object_store import S3
from tests.shown import all_shown, chain_of

IMPATIENT = {"connect_timeout": 1, "read_timeout": 1, "retries": {"max_attempts": 0}}
"""For botocore: it would try for long."""
EXTRAS = {"s3": "s3", "gs": "gcs", "abfs": "azure"}


def land_in(url: str, *files: bytes, storage_conn_id: str | None = None) -> tuple[LandedOutput, ...]:
    def download(number: str, into: IO[bytes]) -> None:
        into.write(files[int(number)])

    outputs = [OutputFile(url=str(number)) for number in range(len(files))]
    return land(outputs, output_path=url, name="mine", download=download, storage_conn_id=storage_conn_id)


def probe_error(path: str, conn_id: str | None = None) -> str:
    """Probe a path that cannot be written, and return the reason."""
    with pytest.raises(StorageError) as raised:
        probe(path, conn_id)
    error = raised.value
    assert error.what.endswith(". Nothing was submitted yet.")
    return error.what.removesuffix(". Nothing was submitted yet.").partition(" cannot be written: ")[2]


def input_problem(path: str, conn_id: str | None = None) -> str:
    """Read an input that cannot be used, and return the problem."""
    (problem,) = read_inputs([path], None, storage_conn_id=conn_id).problems
    return problem.message


@pytest.fixture
def closed_port() -> int:
    """A port of this machine without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def known_worker(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whom the store knows without any connection."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-workers")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "own")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setattr(airflow_stores, "_STORE_CACHE", {})


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes what it is sent, and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]
    join_jobs()


class TestLanding:
    @pytest.mark.parametrize("named", ["in the URL", "separately", "both"])
    @pytest.mark.parametrize("folder", ["", "out", "out/of here/ü", "out/"])
    def test_pictures_land_under_the_path(self, s3: S3, paint: Paint, named: str, folder: str) -> None:
        files = [paint(size=(40 + number, 30)) for number in range(6)]
        url = s3.url(folder, conn_id="" if named == "separately" else s3.conn_id)
        conn_id = None if named == "in the URL" else s3.conn_id if named == "separately" else "of_another_store"
        probe(url, conn_id)

        landed = land_in(url, *files, storage_conn_id=conn_id)

        keys = [f"{folder.rstrip('/')}/mine-{number}.png".lstrip("/") for number in range(6)]
        assert s3.objects() == dict(zip(keys, files, strict=True))
        assert [one.path for one in landed] == [s3.url(key, conn_id=s3.conn_id) for key in keys]
        assert [one.sha256 for one in landed] == [hashlib.sha256(data).hexdigest() for data in files]
        assert [one.width for one in landed] == [40, 41, 42, 43, 44, 45]

    def test_without_a_connection_the_workers_own_credentials_are_used(
        self, s3: S3, paint: Paint, known_worker: None
    ) -> None:
        data = paint()
        probe(s3.url("out"))

        (landed,) = land_in(s3.url("out"), data)

        assert landed.path == s3.url("out/mine-0.png")
        assert read_inputs([landed.path], None).images == (encoded(data),)

    def test_an_older_object_of_ours_is_replaced_and_no_other(self, s3: S3, paint: Paint) -> None:
        s3.put("out/mine-0.png", b"of an earlier try")
        s3.put("out/mine-0.webp", b"of an earlier try in another format")
        s3.put("out/yours-0.png", b"yours")
        data = paint()

        land_in(s3.url("out"), data, storage_conn_id=s3.conn_id)

        assert s3.objects() == {
            "out/mine-0.png": data,
            "out/mine-0.webp": b"of an earlier try in another format",
            "out/yours-0.png": b"yours",
        }

    def test_only_the_right_to_put_objects_is_needed(self, s3: S3, paint: Paint) -> None:
        with s3.checking_rights("s3:PutObject", "s3:AbortMultipartUpload") as conn_id:
            probe(s3.url("out"), conn_id)
            land_in(s3.url("out"), paint(), storage_conn_id=conn_id)

        assert list(s3.objects()) == ["out/mine-0.png"]
        assert s3.uploads_in_progress() == []

    def test_a_bucket_that_was_removed_meanwhile_is_a_storage_error(self, s3: S3, paint: Paint) -> None:
        with pytest.raises(StorageError) as raised:
            land_in("s3://removed-meanwhile/out", paint(), storage_conn_id=s3.conn_id)

        path = f"s3://{s3.conn_id}@removed-meanwhile/out/mine-0.png"
        assert raised.value.what == f"{path} cannot be written: The specified bucket does not exist."
        assert "removed-meanwhile" not in s3.buckets()

    def test_rights_that_were_removed_meanwhile_are_a_storage_error(self, s3: S3, paint: Paint) -> None:
        with s3.checking_rights() as conn_id, pytest.raises(StorageError, match="cannot be written: Access Denied"):
            land_in(s3.url("out"), *[paint()] * 6, storage_conn_id=conn_id)

        assert s3.objects() == {}

    def test_a_store_that_became_unreachable_is_a_storage_error(self, s3: S3, paint: Paint, closed_port: int) -> None:
        conn_id = s3.connect(endpoint_url=f"http://127.0.0.1:{closed_port}", config_kwargs=IMPATIENT)

        with pytest.raises(StorageError, match="Could not connect to the endpoint URL"):
            land_in(s3.url("out"), paint(), storage_conn_id=conn_id)


class TestProbe:
    def test_a_probe_leaves_nothing_even_in_a_bucket_that_keeps_versions(self, s3: S3) -> None:
        s3.keep_versions()

        probe(s3.url("out"), s3.conn_id)
        probe(s3.url(conn_id=s3.conn_id))

        assert s3.versions() == s3.uploads_in_progress() == []

    @pytest.mark.parametrize("folder", ["", "/out"])
    def test_a_missing_bucket_is_found_and_not_created(self, s3: S3, folder: str) -> None:
        error = probe_error(f"s3://no-such-bucket{folder}", s3.conn_id)

        assert error == "The specified bucket does not exist"
        assert "no-such-bucket" not in s3.buckets()

    def test_an_impossible_bucket_is_found(self, s3: S3) -> None:
        assert "Invalid bucket name" in probe_error("s3://a!/out", s3.conn_id)
        assert probe_error("s3://", s3.conn_id)

    @pytest.mark.parametrize("rights", [[], ["s3:GetObject", "s3:ListBucket", "s3:DeleteObject"]])
    def test_missing_rights_are_found(self, s3: S3, rights: list[str]) -> None:
        with s3.checking_rights(*rights) as conn_id:
            assert probe_error(s3.url("out"), conn_id) == "Access Denied"

        assert s3.objects() == {}

    def test_a_wrong_key_is_found(self, s3: S3) -> None:
        with s3.checking_rights():
            error = probe_error(s3.url("out"), s3.connect("AKIANOBODYSKEY", "wrong-secret"))

        assert error == "The AWS Access Key Id you provided does not exist in our records"

    def test_a_wrong_secret_is_found(self, s3: S3) -> None:
        with s3.checking_rights("s3:PutObject"):
            error = probe_error(s3.url("out"), s3.connect(s3.last_login, "wrong-secret"))

        assert "signature we calculated does not match" in error
        assert "wrong-secret" not in error

    def test_an_endpoint_that_refuses_is_found(self, s3: S3, closed_port: int) -> None:
        conn_id = s3.connect(endpoint_url=f"http://127.0.0.1:{closed_port}", config_kwargs=IMPATIENT)

        error = probe_error(s3.url("out"), conn_id)

        assert error.startswith(f'Could not connect to the endpoint URL: "http://127.0.0.1:{closed_port}/{s3.bucket}/')

    def test_a_probe_ends_if_the_endpoint_does_not_answer(
        self, s3: S3, silent_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(landing, "MAX_PROBE_SECONDS", 0.5)
        conn_id = s3.connect(endpoint_url=f"http://127.0.0.1:{silent_port}", config_kwargs=IMPATIENT)

        assert probe_error(s3.url("out"), conn_id) == "no answer within 0.5 s"

    def test_a_missing_connection_is_reported_even_if_the_worker_may_write(self, s3: S3, known_worker: None) -> None:
        error = probe_error(s3.url("out", conn_id="no_such"))

        assert error == "the connection 'no_such' cannot be loaded: The conn_id `no_such` isn't defined"

    def test_a_connection_that_cannot_be_parsed_is_reported(
        self, s3: S3, known_worker: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", '{"conn_type": "aws", ')
        with s3.checking_rights():
            assert "the connection 'broken' cannot be loaded" in probe_error(s3.url("out", conn_id="broken"))


class TestReading:
    def test_pictures_are_read_from_a_store(self, s3: S3, paint: Paint) -> None:
        data = [paint(), paint("JPEG")]
        s3.put("in/a b.png", data[0])
        s3.put("in/ü", data[1])

        paths = [s3.url("in/a b.png"), s3.url("in/ü", conn_id=s3.conn_id)]
        inputs = read_inputs(paths, None, storage_conn_id=s3.conn_id)

        digests = {path: hashlib.sha256(one).hexdigest() for path, one in zip(paths, data, strict=True)}
        assert inputs == Inputs(images=tuple(map(encoded, data)), mask=None, problems=(), sha256=digests)

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (FileNotFoundError("photos/no.csv"), "No such file or directory"),
            (IsADirectoryError("photos"), "Is a directory"),
            (FileNotFoundError("The specified bucket does not exist"), "The specified bucket does not exist"),
        ],
        ids=repr,
    )
    def test_an_error_that_only_repeats_the_key_gets_words(self, error: OSError, words: str) -> None:
        assert describe_error(error, "s3://photos/no.csv") == words

    def test_a_read_ends_one_byte_after_the_limit(self, s3: S3) -> None:
        url = s3.put("in/large.png", bytes(3000))

        assert len(read(storage_path(url, s3.conn_id), 1000)) == 1001

    def test_the_client_is_made_before_threads_share_it(self, s3: S3, known_worker: None) -> None:
        open_store(s3.url("in/a.png"), None)

        assert "fs" in vars(airflow_stores._STORE_CACHE["s3"])

    def test_a_mask_in_a_store_is_compared_with_a_local_picture(self, s3: S3, pictures: Any) -> None:
        mask = s3.put("mask.png", (pictures / "coffee-mask-wrong-size.png").read_bytes())

        inputs = read_inputs([str(pictures / "coffee.png")], mask, storage_conn_id=s3.conn_id)

        assert [str(problem) for problem in inputs.problems] == ["mask: has 300x200 pixels, but images[0] has 600x400"]

    def test_a_landed_output_can_be_edited_again(self, s3: S3, paint: Paint) -> None:
        data = paint()
        (landed,) = land_in(s3.url("out"), data, storage_conn_id=s3.conn_id)

        assert read_inputs([str(landed.path)], None).images == (encoded(data),)

    def test_a_missing_object(self, s3: S3) -> None:
        missing = s3.url("in/missing.png")

        assert input_problem(missing, s3.conn_id) == f"{missing!r} does not exist, as this worker sees it"

    def test_a_missing_bucket(self, s3: S3) -> None:
        assert "does not exist" in input_problem("s3://no-such-bucket/a.png", s3.conn_id)

    def test_a_folder(self, s3: S3, paint: Paint) -> None:
        s3.put("in/a.png", paint())

        assert input_problem(s3.url("in"), s3.conn_id) == f"{s3.url('in')!r} is a folder, not a file"
        assert input_problem(s3.url("in/"), s3.conn_id) == f"{s3.url('in/')!r} is a folder, not a file"
        assert "cannot be read" in input_problem(s3.url(), s3.conn_id)

    def test_an_empty_object(self, s3: S3) -> None:
        assert "is empty (0 bytes)" in input_problem(s3.put("in/empty.png", b""), s3.conn_id)

    def test_an_object_without_the_right_to_read_it(self, s3: S3, paint: Paint) -> None:
        url = s3.put("in/a.png", paint())
        with s3.checking_rights("s3:PutObject") as conn_id:
            assert input_problem(url, conn_id) == f"{url!r} cannot be read: Forbidden"

    def test_an_object_that_is_too_large(self, s3: S3) -> None:
        url = s3.put("in/large.png", bytes(MAX_INPUT_BYTES + 1))

        assert "has more than 10 MiB; make it smaller" in input_problem(url, s3.conn_id)

    def test_an_unreachable_store_may_be_reachable_in_a_retry(self, s3: S3, closed_port: int) -> None:
        conn_id = s3.connect(endpoint_url=f"http://127.0.0.1:{closed_port}", config_kwargs=IMPATIENT)

        with pytest.raises(StorageError) as raised:
            read_inputs([s3.url("in/a.png")], None, storage_conn_id=conn_id)

        assert raised.value.retry_helps
        assert f"The input '{s3.url('in/a.png')}' cannot be read: Could not connect to the endpoint" in str(
            raised.value
        )
        assert str(raised.value).endswith(
            "Nothing was submitted yet. Check the store and its connection; a retry may succeed."
        )


def install(scheme: str) -> str:
    return f"pip install 'airflow-provider-odirouter[{EXTRAS[scheme]}]'"


class TestMissingPackages:
    @pytest.fixture(params=["s3", "gs", "abfs"])
    def scheme(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """A store whose package is not installed: the packages of the other two are not, here."""
        monkeypatch.setitem(sys.modules, "s3fs", None)
        monkeypatch.setattr(airflow_stores, "_STORE_CACHE", {})
        return str(request.param)

    def test_the_probe_says_what_to_install(self, scheme: str) -> None:
        assert probe_error(f"{scheme}://bucket/out") == (
            f"{scheme}:// needs a package that is not installed here: {install(scheme)}"
        )

    def test_an_input_says_what_to_install(self, scheme: str) -> None:
        assert input_problem(f"{scheme}://bucket/a.png").endswith(
            f"cannot be read: {scheme}:// needs a package that is not installed here: {install(scheme)}"
        )

    def test_a_landing_says_what_to_install(self, scheme: str, paint: Paint) -> None:
        with pytest.raises(StorageError, match="needs a package that is not installed here: pip install"):
            land_in(f"{scheme}://bucket/out", paint())


class TestSecrets:
    @pytest.fixture(params=["probe", "landing", "reading"])
    def use(self, request: pytest.FixtureRequest, paint: Paint) -> Callable[[str, str | None], str]:
        """Uses the store; returns the text that the user sees."""

        def call(url: str, conn_id: str | None) -> str:
            match request.param:
                case "reading":
                    return str(read_inputs([url], None, storage_conn_id=conn_id).problems)
                case "landing":
                    land_in(url, paint(), storage_conn_id=conn_id)
                case "probe":
                    probe(url, conn_id)
            return "nothing"

        def use(url: str, conn_id: str | None) -> str:
            try:
                return call(url, conn_id)
            except StorageError as error:
                return str(error)

        return use

    def test_no_text_holds_a_secret(self, s3: S3, closed_port: int, use: Callable[[str, str | None], str]) -> None:
        # The client's error shows the whole address: here with all that must not be shown.
        conn_id = s3.connect(
            password="secret-of-the-key",
            aws_session_token="token-of-the-session",
            endpoint_url=f"http://127.0.0.1:{closed_port}/secret-of-the-key/token-of-the-session",
            config_kwargs=IMPATIENT,
        )

        assert f'Could not connect to the endpoint URL: "http://127.0.0.1:{closed_port}/***/***/' in use(
            s3.url("out"), conn_id
        )

    def test_no_text_holds_a_password_of_a_url(
        self, s3: S3, use: Callable[[str, str | None], str], known_worker: None
    ) -> None:
        with s3.checking_rights():
            text = use(f"s3://AKIASOMEBODY:password@{s3.bucket}/out", None)

        assert "s3://AKIASOMEBODY:***@" in text
        assert "cannot be loaded" in text
        assert "password" not in text

    @pytest.mark.parametrize("kind", ["probe", "landing", "reading", "listing", "manifest", "state"])
    def test_no_cause_and_no_frame_holds_a_secret(
        self, s3: S3, closed_port: int, paint: Paint, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        caplog.set_level("DEBUG", "airflow_provider_odirouter")
        conn_id = s3.connect(
            password="secret-of-the-key",
            aws_session_token="token-of-the-session",
            endpoint_url=f"http://127.0.0.1:{closed_port}/secret-of-the-key/token-of-the-session",
            config_kwargs=IMPATIENT,
        )
        url = s3.url("out")
        use = {
            "probe": lambda: probe(url, conn_id),
            "landing": lambda: land_in(url, paint(), storage_conn_id=conn_id),
            "reading": lambda: read_inputs([url], None, storage_conn_id=conn_id),
            "listing": lambda: read_edits(f"{url}/edits.jsonl", storage_conn_id=conn_id),
            "manifest": lambda: write_manifest([], output_path=url, storage_conn_id=conn_id, name="mine"),
            "state": lambda: BatchStore(url, conn_id, "mine", max_tries=1).load(None),
        }[kind]

        with pytest.raises(StorageError, match="Could not connect to the endpoint URL") as caught:
            use()

        assert list(chain_of(caught.value)) == [caught.value]
        assert "Traceback" in caplog.text, "for debugging"
        for secret in ("secret-of-the-key", "token-of-the-session"):
            assert secret not in all_shown(caught.value)
            assert secret not in caplog.text

    @pytest.mark.parametrize("value", ["aws://key:se/cret-word@/", '{"conn_type": "aws", "password": "se/cret-word", '])
    def test_a_connection_that_cannot_be_read_is_not_quoted(
        self,
        s3: S3,
        closed_port: int,
        use: Callable[[str, str | None], str],
        monkeypatch: pytest.MonkeyPatch,
        value: str,
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", value)
        # Airflow goes on without the connection, and Amazon's client would ask Amazon's own servers.
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unknown")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

        text = use(s3.url("out"), "broken")

        assert "the connection 'broken' cannot be loaded" in text
        assert "cret-word" not in text
        assert "'se'" not in text

    def test_no_text_holds_a_password_with_a_slash_of_a_url(self, use: Callable[[str, str | None], str]) -> None:
        text = use("s3://AKIASOMEBODY:pass/word@no-bucket/out", None)

        assert "word@" not in text
        assert ":pass" not in text

    def test_the_log_of_a_failed_discard_holds_no_secret(
        self, s3: S3, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conn_id = s3.connect(password="secret-of-the-key")
        path = storage_path(s3.url("out/a.png"), conn_id)

        class Half:
            def discard(self) -> None:
                raise OSError("refused: secret-of-the-key")

        files._discard(Half(), path)

        assert "could not be discarded: refused: ***" in caplog.text
