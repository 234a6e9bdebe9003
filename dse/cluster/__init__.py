"""Work on the workers of a Dask cluster: other processes of this machine, or other machines."""
