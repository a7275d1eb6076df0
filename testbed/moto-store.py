"""An S3 store with a Security Token Service that nobody here wrote: moto, over TLS, with its checks of keys and policies on.

Prints one line of JSON when it is ready, and serves until it is ended:
{"endpoint", "bucket", "role", "accessKeyId", "secretAccessKey", "weak": {the keys of a user who may only read}}.

Usage: moto-store.py ADDRESS DIRECTORY
Writes the certificate of its authority to DIRECTORY/ca.pem.
"""

import datetime
import ipaddress
import json
import pathlib
import sys
import threading

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto import settings
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "results-of-jobs"
ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
READ = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}


def document(statement):
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def user(iam, name, statement):
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(statement))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"accessKeyId": key["AccessKeyId"], "secretAccessKey": key["SecretAccessKey"]}


def certificates(address, directory):
    """An authority and a server that the authority vouches for; gives the paths of the three files."""
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def issue(subject, key, signer, extension):
        all = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("authority"))
        all = all.not_valid_before(now - day).not_valid_after(now + day).serial_number(x509.random_serial_number())
        all = all.public_key(key.public_key()).add_extension(extension, critical=False)
        return all.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def write(file, content):
        path = pathlib.Path(directory) / file
        path.write_bytes(content)
        return str(path)

    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return (
        write("ca.pem", issue("authority", authority, authority, x509.BasicConstraints(ca=True, path_length=None))),
        write("server.pem", issue("store", server, authority, names)),
        write("server.key", server.private_bytes(*form)),
    )


def main():
    address, directory = sys.argv[1:3]
    ca, certificate, key = certificates(address, directory)
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server(address, 0, app, threaded=True, ssl_context=(certificate, key))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"https://{address}:{server.port}"

    def client(service):
        return boto3.client(
            service, endpoint_url=endpoint, region_name="us-east-1", verify=ca,
            aws_access_key_id="setup", aws_secret_access_key="setup",
        )

    client("s3").create_bucket(Bucket=BUCKET)
    iam = client("iam")
    strong, weak = user(iam, "operator", ALL), user(iam, "reader", READ)
    role = iam.create_role(RoleName="mover", AssumeRolePolicyDocument=document({"Effect": "Allow", "Principal": {"AWS": iam.get_user(UserName="operator")["User"]["Arn"]}, "Action": "sts:AssumeRole"}))
    iam.put_role_policy(RoleName="mover", PolicyName="p", PolicyDocument=document({"Effect": "Allow", "Action": "s3:*", "Resource": "*"}))
    # From now on each request has to be signed by a user of above, who may do what is asked.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    print(json.dumps({"endpoint": endpoint, "bucket": BUCKET, "role": role["Role"]["Arn"], "weak": weak, **strong}), flush=True)
    threading.Event().wait()


main()
