"""What sinks that write to S3 share. No plugin: nothing is announced from here.

account     whose requests they are: options, credentials as AWS tools find them, a client
upload      one object, checked by the store, until a deadline
"""
