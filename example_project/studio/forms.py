from django import forms

from example_project.studio.models import Customer, Photo


class SignupForm(forms.ModelForm):
    """Form for a new customer."""

    class Meta:  # noqa: D106 - Django's own form
        model = Customer
        fields = ("name", "email")


class UploadForm(forms.ModelForm):
    """Form for a new photo. Django opens the file with Pillow and refuses a file that is not an image."""

    class Meta:  # noqa: D106 - Django's own form
        model = Photo
        fields = ("title", "image")


class BatchForm(forms.Form):
    """Form for selecting photos to process."""

    photos = forms.ModelMultipleChoiceField(Photo.objects.all(), widget=forms.CheckboxSelectMultiple)
