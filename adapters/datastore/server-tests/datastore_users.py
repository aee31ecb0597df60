"""An application with Flask-Login that keeps its users in Datastore with `datastore-entity`.

    datastore_users.py create NAMESPACE
        creates users, and prints them
    datastore_users.py login NAMESPACE NAME PASSWORD
        logs a user in, and prints the text of the account page
    datastore_users.py show NAMESPACE NAME
        prints a user's entity: its properties, and which of them are not indexed
    datastore_users.py rename NAMESPACE NAME NEW_NAME
        changes a user as applications do: reads, changes and saves the user

Each command prints JSON. DATASTORE_EMULATOR_HOST and DATASTORE_PROJECT_ID name the emulator and
the project.
"""

import datetime
import json
import os
import sys

from datastore_entity import DatastoreEntity, EntityValue
from flask import Flask, request
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from google.cloud import datastore
from google.cloud.datastore.helpers import GeoPoint
from werkzeug.security import check_password_hash, generate_password_hash

# `datastore-entity` takes the project from this variable.
os.environ.setdefault("GOOGLE_CLOUD_PROJECT", os.environ["DATASTORE_PROJECT_ID"])
METHOD = "pbkdf2:sha256:1000"
NAMESPACE = sys.argv[2]


class User(DatastoreEntity, UserMixin):
    __kind__ = "user"
    __exclude_from_index__ = ["password_hash", "bio", "nothing", "settings"]

    username = EntityValue(None)
    password_hash = EntityValue(None)
    status = EntityValue(1)
    score = EntityValue(0.5)
    joined = EntityValue(None)
    bio = EntityValue("")
    nothing = EntityValue(None)
    avatar = EntityValue(b"")
    tags = EntityValue(None)
    settings = EntityValue(None)

    def __init__(self):
        super().__init__(namespace=NAMESPACE)

    def get_id(self):
        return str(self.key.id_or_name)


def client():
    return datastore.Client(namespace=NAMESPACE)


def find(name):
    return User().get_obj("username", name)


def create():
    made = {}
    for name in ["ada", "佐藤"]:
        user = User()
        user.username = name
        user.password_hash = generate_password_hash(f"password of {name}", method=METHOD)
        user.joined = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc)
        user.bio = "long " * 1000
        user.avatar = b"\x00\xff"
        user.tags = ["a", "b"]
        user.settings = {"theme": "dark", "sizes": [1, 2]}
        prefs = datastore.Entity(exclude_from_indexes=("secret",))
        prefs.update({"theme": "dark", "secret": "s", "level": 3})
        user.save(
            extra_props={
                "added_by_the_admin_tool": 7,
                "home": GeoPoint(52.5, 13.25),
                "team": client().key("team", 3),
                "prefs": prefs,
            }
        )
        made[name] = find(name).get_id()
    named = User()
    named.username = "grace"
    # Werkzeug's default method hashes this password.
    named.password_hash = generate_password_hash("password of grace")
    named.save(id="grace-hopper")
    made["grace"] = find("grace").get_id()
    return made


def login(name, password):
    app = Flask(__name__)
    app.secret_key = "only here"
    manager = LoginManager(app)

    @manager.user_loader
    def load(user_id):
        key = client().key("user", int(user_id) if user_id.isdigit() else user_id)
        return User().get_obj_with_key(key)

    @app.post("/login")
    def log_in():
        user = find(request.form["username"])
        if not user or not check_password_hash(user.password_hash, request.form["password"]):
            return "wrong", 401
        login_user(user)
        return "in"

    @app.get("/account")
    @login_required
    def account():
        return f"{current_user.username} {current_user.get_id()}"

    browser = app.test_client()
    browser.post("/login", data={"username": name, "password": password})
    answer = browser.get("/account")
    return {"status": answer.status_code, "text": answer.get_data(as_text=True)}


def show(name):
    query = client().query(kind="user")
    query.add_filter(filter=datastore.query.PropertyFilter("username", "=", name))
    [entity] = query.fetch(limit=2)
    return {"id": entity.key.id_or_name, **plain(entity)}


def plain(value):
    if isinstance(value, datastore.Entity):
        return {
            "properties": {key: [type(value).__name__, plain(value)] for key, value in sorted(value.items())},
            "unindexed": sorted(value.exclude_from_indexes),
        }
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, GeoPoint):
        return [value.latitude, value.longitude]
    if isinstance(value, datastore.Key):
        return value.flat_path
    return value


def rename(name, other):
    user = find(name)
    user.username = other
    user.save()
    return {"id": user.get_id()}


if __name__ == "__main__":
    command = {"create": create, "login": login, "show": show, "rename": rename}[sys.argv[1]]
    print(json.dumps(command(*sys.argv[3:])))
