"""From files on disk to batches: sources -> mixture -> encoding -> collate -> datamodule."""
