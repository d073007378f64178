"""Questions and answers: request, result, queue and worker. Imports no torch; only ``local`` does."""
