"""Who answers and refuses a log-in is told apart from who is away: only the second is worth waiting for."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
from confluent_kafka import KafkaError

from streaming import database
from streaming.database import REFUSED
from streaming.errors import LakeRefusedError, LakeUnavailableError
from streaming.kafka_trouble import is_refusal

ASKED_FOR = "Failed to acquire SASL OAUTHBEARER token: "


@pytest.mark.parametrize(
    ("code", "text", "refuses"),
    [
        (KafkaError._AUTHENTICATION, "SASL authentication error: invalid credentials", True),
        (KafkaError._SSL, "SSL handshake failed: certificate verify failed", True),
        (KafkaError._TRANSPORT, "Receive failed: tlsv13 alert certificate required: SSL alert number 116", True),
        (KafkaError._AUTHENTICATION, ASKED_FOR + '{"error": "invalid_client"}', True),
        (
            KafkaError._AUTHENTICATION,
            ASKED_FOR + "SSL certificate OpenSSL verify result: unable to get local issuer",
            True,
        ),
        (KafkaError._AUTHENTICATION, ASKED_FOR + '{"error": "temporarily_unavailable"}', False),
        (KafkaError._AUTHENTICATION, ASKED_FOR + '{"error":"server_error"}', False),
        (KafkaError._AUTHENTICATION, ASKED_FOR + "Could not connect to server", False),
        (KafkaError._AUTHENTICATION, ASKED_FOR + "HTTP 503", False),
        (KafkaError._TRANSPORT, "Connect to ipv4#127.0.0.1:9092 failed: Connection refused", False),
        (KafkaError._RESOLVE, "Failed to resolve 'kafka:9092': Name or service not known", False),
        (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down", False),
    ],
)
def test_what_kafka_tells(code: int, text: str, *, refuses: bool) -> None:
    assert is_refusal(KafkaError(code, text)) is refuses


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ('connection to server failed: FATAL:  password authentication failed for user "lander"', True),
        ('connection to server failed: FATAL:  database "lak" does not exist', True),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.7", user "lander", no encryption', True),
        ("connection to server failed: fe_sendauth: no password supplied", True),
        ("connection to server failed: server does not support SSL, but SSL was required", True),
        ('connection to server failed: root certificate file "/run/ca.pem" does not exist', True),
        ("connection to server failed: SSL error: certificate verify failed", True),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  the database system is shutting down", False),
        ("FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent recovery state", False),
        ("FATAL:  sorry, too many clients already", False),
        ("FATAL:  terminating connection due to administrator command", False),
        ("FATAL:  canceling authentication due to timeout", False),
        ("FATAL:  out of memory\nDETAIL:  Failed on request of size 24.", False),
        ('FATAL:  could not write to file "base/pgsql_tmp": No space left on device', False),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", False),
        ("FATAL:  la autentificación password falló para el usuario «lander»", True),
        ("FATAL:  Passwort-Authentifizierung für Benutzer »lander« fehlgeschlagen", True),
        ("FATAL:  le rôle « lander » n'existe pas", True),
        ('FATAL:  データベース"lak"は存在しません', True),
        ("FATAL:  el sistema de base de datos está iniciándose", False),
        ("FATAL:  el sistema de bases de datos aún no está aceptando conexiones", False),
        ("FATAL:  lo siento, ya tenemos demasiados clientes", False),
        ("FATAL:  demasiadas conexiones para el rol «lander»", False),
        ("FATAL:  terminando la conexión debido a una orden del administrador", False),
        ("FATAL:  das Datenbanksystem fährt herunter", False),
        ("FATAL:  tut mir leid, schon zu viele Verbindungen", False),
        ("FATAL:  die verbleibenden Verbindungen sind für Superuser reserviert", False),
        ("FATAL:  le système de bases de données se lance", False),
        ("FATAL:  désolé, trop de clients sont déjà connectés", False),
        ("FATAL:  arrêt des connexions suite à la demande de l'administrateur", False),
        ("FATAL:  arrêt de la connexion à cause de l'arrêt brutal d'un autre processus serveur", False),
        ("FATAL:  データベースシステムは起動処理中です", False),
        ("FATAL:  現在クライアント数が多すぎます", False),
        ("could not translate host name to address: Name or service not known", False),
        ("Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?", False),
        ("timeout expired", False),
    ],
)
def test_what_postgres_tells(text: str, *, refuses: bool) -> None:
    assert bool(REFUSED.search(text)) is refuses


def say_fatal(server: socket.socket, words: bytes) -> None:
    """A Postgres server that answers whoever asks once, before the log-in, in its own encoding."""
    asker, _ = server.accept()
    with asker:
        asker.recv(1024)
        fields = b"SFATAL\0VFATAL\0C57P03\0M" + words + b"\0\0"
        asker.sendall(b"E" + struct.pack("!i", len(fields) + 4) + fields)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("el sistema de base de datos está iniciándose", LakeUnavailableError),
        ("la autentificación password falló para el usuario «lander»", LakeRefusedError),
    ],
)
def test_a_server_whose_words_are_not_in_utf_8_is_understood(words: str, kind: type[Exception]) -> None:
    """lc_messages = es_ES, or Spanish Windows: psycopg2 raises UnicodeDecodeError, which was a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=say_fatal, args=(server, words.encode("latin-1")))
        thread.start()
        dsn = f"postgresql://lander@127.0.0.1:{server.getsockname()[1]}/lake?sslmode=disable&gssencmode=disable"
        with pytest.raises(kind, match=words):
            database.connect(dsn, application_name="test")
        thread.join()
