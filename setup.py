"""Installs byol_jax: pip install -e . (extras: tpu, cuda12, cuda13, convert, docs, test)."""

import pathlib

import setuptools

HERE = pathlib.Path(__file__).parent

setuptools.setup(
    name='byol_jax',
    version='0.1.0',
    description='BYOL (Bootstrap Your Own Latent) on JAX and Haiku, for TPUs.',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11,<3.14',
    packages=setuptools.find_packages(include=['byol_jax*']),
    package_data={'byol_jax.report': ['page.html', 'page.css']},
    install_requires=[
        'absl-py>=2.1',
        'chex>=0.1.92',
        'dm-haiku>=0.0.17',
        'etils[epath]>=1.9',
        # tensorflow-datasets 4.9.10 imports it when it prepares a set, undeclared.
        'importlib_resources>=5',
        'jinja2>=3.1',
        'jax>=0.10,<0.13',
        'jmp>=0.0.4',
        'matplotlib>=3.8',
        'ml-collections>=1.1,<2',
        'numpy>=2.0',
        'optax>=0.2.8,<0.3',
        'orbax-checkpoint>=0.12,<0.13',
        'pillow>=10',
        'scikit-learn>=1.5',
        'tensorboardX>=2.6.5',
        'tensorflow-datasets>=4.9.10,<5',
        'tqdm>=4.66',
        # The CPU build has no wheel outside Linux on x86-64.
        "tensorflow-cpu>=2.20,<2.22; sys_platform == 'linux' and platform_machine == 'x86_64'",
        "tensorflow>=2.20,<2.22; sys_platform != 'linux' or platform_machine != 'x86_64'",
    ],
    extras_require={
        'tpu': ['jax[tpu]'],
        'cuda12': ['jax[cuda12]'],
        'cuda13': ['jax[cuda13]'],
        'convert': ['safetensors>=0.7'],
        'docs': ['myst-parser>=5', 'sphinx>=9', 'sphinx-book-theme>=1.4'],
        'test': ['dill>=0.3.8', 'dm-pix>=0.4.5', 'pytest>=8', 'pytest-xdist>=3',
                 'ruff>=0.8', 'safetensors>=0.7'],
    },
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
    ],
)
