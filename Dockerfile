# One image for every program; the command chooses: python -m gateway, python -m router.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PYTHONPATH=/app
WORKDIR /app

COPY requirements.lock .
RUN pip install --require-hashes -r requirements.lock

COPY . .

RUN useradd --system --no-create-home postroom
USER postroom

CMD ["python", "-P", "-m", "gateway"]
