"""A store that speaks S3's protocol on loopback: moto's server, with the rights that real ones check."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from uuid import uuid4

import boto3  # type: ignore[import-untyped]
from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"


@contextmanager
def serve() -> Iterator[str]:
    """Serve S3 for a while; the value is its endpoint."""
    # A line for each call would bury what a failed test says.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@cache
def client(endpoint: str, service: str) -> Any:
    """Make the client of a user who may do everything, once for all buckets: it takes 0.1 s."""
    keys = {"aws_access_key_id": "root", "aws_secret_access_key": "of-all"}
    return boto3.client(service, endpoint_url=endpoint, region_name=REGION, **keys)


def variable_of(conn_id: str) -> str:
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def add_connection(endpoint: str, login: str = "root", password: str = "of-all", **extra: Any) -> str:
    """
    Make an Airflow connection; returns its id.

    Each has an id of its own: Airflow remembers a connection's client for as long as its process lives.
    """
    conn_id = f"s3_{uuid4().hex[:8]}"
    options = {"endpoint_url": endpoint, "region_name": REGION} | extra
    connection = {"conn_type": "aws", "login": login, "password": password, "extra": options}
    os.environ[variable_of(conn_id)] = json.dumps(connection)
    return conn_id


shared_connection = cache(add_connection)


class S3:
    """
    One bucket, and an Airflow connection whose user may do everything, which all buckets share.

    Other connections are this bucket's own.
    """

    def __init__(self, endpoint: str, bucket: str = "") -> None:
        self.endpoint = endpoint
        self.bucket = bucket or f"bucket-{uuid4().hex[:8]}"
        self.last_login = ""
        """Of the user whose rights are checked."""
        self._connections: list[str] = []
        self._client = client(endpoint, "s3")
        self._client.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.conn_id = shared_connection(endpoint)

    def url(self, key: str = "", *, conn_id: str = "") -> str:
        """The URL of a key; with a connection, if one is given."""
        return f"s3://{conn_id}{'@' if conn_id else ''}{self.bucket}{'/' if key else ''}{key}"

    def put(self, key: str, data: bytes) -> str:
        """Put an object there; returns its URL."""
        self._client.put_object(Bucket=self.bucket, Key=key, Body=data)
        return self.url(key)

    def objects(self) -> dict[str, bytes]:
        """All that lies in the bucket."""
        keys = [one["Key"] for one in self._client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]
        return {key: self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def content_types(self) -> dict[str, str]:
        """The media type that lies beside each object."""
        return {key: self._client.head_object(Bucket=self.bucket, Key=key)["ContentType"] for key in self.objects()}

    def uploads_in_progress(self) -> list[str]:
        """The keys of multi-part uploads that were begun, and neither completed nor aborted."""
        uploads = self._client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [one["Key"] for one in uploads]

    def buckets(self) -> list[str]:
        """All buckets of the server, those of other tests too."""
        return [one["Name"] for one in self._client.list_buckets()["Buckets"]]

    def keep_versions(self) -> None:
        """Keep whatever was ever written to the bucket, and forget no deletion."""
        self._client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    def versions(self) -> list[str]:
        """The keys of all that was ever written to the bucket, or deleted from it."""
        listed = self._client.list_object_versions(Bucket=self.bucket)
        return [one["Key"] for kind in ("Versions", "DeleteMarkers") for one in listed.get(kind, [])]

    def connect(self, login: str = "root", password: str = "of-all", **extra: Any) -> str:
        """Make an Airflow connection; returns its id."""
        self._connections.append(add_connection(self.endpoint, login, password, **extra))
        return self._connections[-1]

    @contextmanager
    def checking_rights(self, *actions: str) -> Iterator[str]:
        """Check everybody's rights for a while, and make a connection whose user may do these actions alone."""
        iam, user = client(self.endpoint, "iam"), f"user-{uuid4().hex[:8]}"
        iam.create_user(UserName=user)
        allowed = {"Effect": "Allow", "Action": list(actions) or ["s3:NoSuchAction"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName=user, PolicyName="rights", PolicyDocument=policy)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        self.last_login = key["AccessKeyId"]
        before = settings.INITIAL_NO_AUTH_ACTION_COUNT
        settings.INITIAL_NO_AUTH_ACTION_COUNT = ActionAuthenticatorMixin.request_count
        try:
            yield self.connect(key["AccessKeyId"], key["SecretAccessKey"])
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = before

    def forbid_everything(self) -> None:
        """Let the user of this bucket's connection be nobody, from now on."""
        settings.INITIAL_NO_AUTH_ACTION_COUNT = ActionAuthenticatorMixin.request_count

    @contextmanager
    def rights_restored(self) -> Iterator[None]:
        """Check nobody's rights any more, afterwards."""
        before = settings.INITIAL_NO_AUTH_ACTION_COUNT
        try:
            yield
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = before

    def close(self) -> None:
        """Take the connections away."""
        for conn_id in self._connections:
            del os.environ[variable_of(conn_id)]
