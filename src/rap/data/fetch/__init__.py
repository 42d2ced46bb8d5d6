"""What a dataset lacks, brought: archives, single files, pages of video sites. What is there is asked for no more."""
