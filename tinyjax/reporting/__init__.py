import logging

# Before matplotlib is imported: its warnings about an unwritable home are no news for the user.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
