# An image with a GPU build of PyTorch: docker build -t unigap . && docker run --gpus all -it unigap unigap gap
# Another base, e.g. of a newer CUDA: docker build --build-arg BASE=pytorch/pytorch:TAG .
ARG BASE=pytorch/pytorch:2.6.0-cuda12.4-cudnn9-runtime
FROM ${BASE}
COPY . /opt/unigap
# the image's own torch satisfies setup.cfg and stays
RUN pip install --no-cache-dir '/opt/unigap[diffusion,quantized,vqa]'
WORKDIR /work
