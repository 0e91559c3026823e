"""The sink `s3`: Parquet files in an S3 bucket, each written once.

Each file is one subject, and imports only from those below it. Read from the top.

    sink        the options, and what the kernel calls
    naming      buckets and folders from templates
    reading     what is in the bucket, as Arrow reads it
    writing     an object that is written only when nothing is there: in one piece or in many
    answers     what the store and the library say, as what the kernel knows
"""

from lakeward_plugins.sinks.s3.sink import S3Sink

__all__ = ["S3Sink"]
