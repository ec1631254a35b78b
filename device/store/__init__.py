"""The object store: clients, credentials, and the upload of the spool.

May import the spool and the modules at device's root that hold no command.
Start reading with stores.py, then upload.py.
"""
